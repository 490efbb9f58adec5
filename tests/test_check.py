"""`postrider check` as an operator runs it: each kind of broken configuration is named with its file, line and column, and
with what was probably meant where something is near.
"""
import json
import os
import pwd
import re
import subprocess

import pytest

from harness import binary

GOOD = """hostname mx.example.org
listen mx { address 127.0.0.1:2525; relay from 10.0.0.0/24 }
domain example.org { mailbox anna bob; alias postmaster -> anna; deliver maildir /var/mail/{domain}/{local} }
route default { direct }
"""
LINE = GOOD.count("\n") + 1

# What is added to a good configuration (or stands in its place), where the error is, a word of it, what is suggested.
BROKEN = [
    ("a misspelt word", "listne mx { address :2526 }", "1", "not known", "listen"),
    ("a misspelt word in a listener", "listen mx b { adress :2526 }", "15", "not known", "address"),
    ("a misspelt word in a domain", "domain a.test { mailbx x; deliver lmtp:/x }", "17", "not known", "mailbox"),
    ("a misspelt word in a route", "route a.test { vai smtp://a.example }", "16", "not known", "via"),
    ("a misspelt word in retry", "retry 5m for 5d { delay-notise off }", "19", "not known", "delay-notice"),
    ("a misspelt word in resolver", "resolver { foward 127.0.0.1 }", "12", "not known", "forward"),
    ("a misspelt value", "sandbox requir", "9", "not a value", "require"),
    ("a misspelt kind of listener", "listen submision { address :2587 }", "8", "not a kind", "submission"),
    ("a misspelt family", "route a.test { direct; family ipv5 }", "31", "not a value", "ipv4"),
    ("a misspelt way to treat TLS", "route a.test { direct; tls required }", "28", "not a value", "require"),
    ("a misspelt mailbox", "domain a.test { mailbox carla; alias x -> carl; deliver lmtp:/x }", "43", "nobody", "carla"),
    ("a misspelt reply", "domain a.test { forward x -> y@z.test reply 521 }", "45", "not a reply", "251"),
    ("a word that is near nothing", "smtpd_banner hello", "1", "not known", None),
    ("a setting twice", "hostname other.example.org", "1", "postrider.conf:1:1", None),
    ("an address that is taken", "listen mx b { address 127.0.0.1:2525 }", "1", "two listeners", None),
    ("a name that is taken", "listen mx { address :2526 }", "8", "another listener", None),
    ("a listener without an address", "listen mx b { vrfy off }", "1", "no address", None),
    ("an address without a port", "listen mx b { address 192.0.2.1 }", "23", "not an address", None),
    ("IPv6 without brackets", "listen mx b { address 2001:db8::1:25 }", "23", "not an address", None),
    ("a size in a wrong unit", "listen mx b { address :2526; max-size 50MB }", "39", "not a size", None),
    ("a size out of range", "listen mx b { address :2526; max-size 1KiB }", "39", "out of range", None),
    ("a number out of range", "listen mx b { address :2526; max-recipients 10 }", "45", "out of range", None),
    ("a number that is none", "listen mx b { address :2526; max-recipients many }", "45", "number", None),
    ("a value of no kind", "listen mx b { address :2526; line-ends fix }", "40", "refuse, repair", None),
    ("a word is missing", "listen mx b { address :2526; connections 50 }", "30", "per-client", None),
    ("an open relay", "listen mx b { address :2526; relay from 0.0.0.0/0 }", "41", "open relay", None),
    ("a network that is none", "listen mx b { address :2526; relay from 10.0.0.1/8 }", "41", "not a network", None),
    ("a network too long", "listen mx b { address :2526; relay from 10.0.0.0/33 }", "41", "not a network", None),
    ("a certificate without a key", "tls { certificate a.pem }", "1", "key is missing", None),
    ("a domain twice", "domain example.org { mailbox x; deliver lmtp:/x }", "8", "given before", None),
    ("a domain that is none", "domain exa_mple..org { mailbox x; deliver lmtp:/x }", "8", "not a domain", None),
    ("mailboxes with no way to deliver", "domain a.test { mailbox x }", "1", "no way to deliver", None),
    ("two ways to deliver", "domain a.test { mailbox x; deliver lmtp:/x; deliver lmtp:/y }", "45", "given before", None),
    ("nobody lives there", "domain a.test { deliver lmtp:/x }", "1", "nobody lives", None),
    ("a mailbox twice", "domain a.test { mailbox x X; deliver lmtp:/x }", "27", "given before", None),
    ("a mailbox that leaves its directory", "domain a.test { mailbox ../x; deliver lmtp:/x }", "25", "cannot be a mailbox", None),
    ("an alias in a circle", "domain a.test { alias x -> y; alias y -> x }", "23", "nobody but itself", None),
    ("an alias without an arrow", "domain a.test { alias x y }", "17", "->", None),
    ("an alias to a program", 'domain a.test { alias x -> "|cat" }', "28", "not an address", None),
    ("a list that is not there", "domain a.test { alias x -> include:none }", "28", "cannot be read", None),
    ("a file of mailboxes that is not there", "domain a.test { mailbox file none; deliver lmtp:/x }", "30", "cannot be read", None),
    ("a route twice", "route default { direct }", "7", "given before", None),
    ("a route to nowhere", "route a.test { family any }", "1", "via", None),
    ("a route with two ways", "route a.test { direct; via smtp://a.example }", "16", "either", None),
    ("a route for no domain", "route *.test { direct }", "7", "not a domain", None),
    ("a next hop by a wrong scheme", "route a.test { via smpts://a.example }", "20", "not a next hop", "smtps"),
    ("a user without a password", "route a.test { via smtp://a.example { user u } }", "16", "password-file", None),
    ("a password in the text", "route a.test { via smtp://a.example { password secret } }", "39", "not known", None),
    ("a port that is none", "route a.test { direct; port 65536 }", "29", "port", None),
    ("a source that is a name", "route a.test { direct; source mx.example.org }", "31", "not an IP address", None),
    ("a rate without a unit", "route a.test { direct; rate 100 }", "29", "rate such as", None),
    ("a retry without an end", "retry 5m 15m", "1", "for 5d", None),
    ("a time that is none", "retry 5 15 for 5d", "7", "not a time", None),
    ("a time out of range", "retry 0 for 5d", "7", "out of range", None),
    ("a resolver's name", "resolver { forward dns.example }", "20", "not a resolver", None),
    ("a file that is not there", "include none.conf", "9", "cannot be read", None),
    ("a file that includes itself", "include postrider.conf", "9", "include itself", None),
    ("a block that is not closed", "domain a.test {\n  mailbox x", "1", "not closed", None),
    ("a block too many", "}", "1", "closes nothing", None),
    ("a quote that is not closed", 'state "/var/lib', "7", "quot", None),
    ("a variable that is not set", "state ${NOWHERE_AT_ALL}", "7", "not set", None),
    ("a NUL", "state /a\0b", "7", "control character 0x00", None),
]


def check(folder, text, *options):
    path = folder / "postrider.conf"
    path.write_text(text, encoding="utf-8")
    return subprocess.run([str(binary()), "check", "--config", str(path), *options], capture_output=True, text=True,
                          timeout=60), path


def test_a_good_one(tmp_path):
    result, path = check(tmp_path, GOOD)
    assert result.returncode == 0 and f"{path}: good: 1 listener, 1 domain" in result.stdout, result


@pytest.mark.parametrize(("why", "more", "column", "words", "suggestion"), BROKEN, ids=[case[0] for case in BROKEN])
def test_broken(tmp_path, why, more, column, words, suggestion):
    result, path = check(tmp_path, GOOD + more + "\n")
    assert result.returncode == 78
    said = result.stdout + result.stderr
    error = next(line for line in said.splitlines() if line.startswith(f"{path}:") and "warning:" not in line)
    assert error.startswith(f"{path}:{LINE}:{column}: "), said
    assert words in error
    near = re.search(r'; did you mean "([^"]*)"\?$', error)
    assert (near and near[1]) == suggestion, error
    report, _ = check(tmp_path, GOOD + more + "\n", "--json")
    first = next(problem for problem in json.loads(report.stdout)["problems"] if problem["kind"] == "error")
    assert (first["file"], first["line"], first["column"]) == (str(path), LINE, int(column))
    assert first.get("suggestion") == suggestion


def test_in_a_file_that_is_included(tmp_path):
    """The file that says it is named, not the one that includes it."""
    (tmp_path / "more.conf").write_text("\n  route a.test { dirct }\n", encoding="ascii")
    result, _ = check(tmp_path, GOOD + "include more.conf\n")
    assert f"{tmp_path}/more.conf:2:18: " in result.stdout + result.stderr
    assert 'did you mean "direct"?' in result.stdout + result.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can tell users apart")
def test_who_delivers_must_be_able_to_make_maildirs(tmp_path):
    """As in /var/mail, where only root and a group make anything."""
    mail = tmp_path / "mail"
    mail.mkdir(mode=0o755)
    said = []
    for path in ("{local}", "{domain}/{local}"):
        site = f"domain b.test {{ mailbox x; deliver maildir {mail}/{path} user nobody }}\n"
        said.append(check(tmp_path, GOOD + site)[0])
    os.chown(mail, pwd.getpwnam("nobody").pw_uid, -1)
    said.append(check(tmp_path, GOOD + site.replace("{domain}/", ""))[0])
    warned = [f'the user who delivers, "nobody", can make no Maildirs in "{mail}"' in result.stdout + result.stderr for result in said]
    assert warned == [True, False, False], said
    assert {result.returncode for result in said} == {said[-1].returncode}


def make_certificate(folder, name, days=90, key=("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), host="mx.example.org", issuer=None,
                     digest="sha256"):
    subprocess.run(["openssl", "req", "-x509", f"-{digest}", "-newkey", *key, "-nodes", "-subj", "/CN=x", "-addext", f"subjectAltName=DNS:{host}",
                    *(["-CA", folder / f"{issuer}.pem", "-CAkey", folder / f"{issuer}.key"] if issuer else []), "-days", "90", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"], check=True, capture_output=True)
    if days != 90:
        subprocess.run(["openssl", "x509", "-in", folder / f"{name}.pem", "-signkey", folder / f"{name}.key", "-days", str(days),
                        "-out", folder / f"{name}.new"], check=True, capture_output=True)
        (folder / f"{name}.new").rename(folder / f"{name}.pem")
    (folder / f"{name}.key").chmod(0o600)


# The statement, what is told of it (None: nothing), whether that is an error.
OURS = "tls { certificate good.pem; key good.key }"
CERTIFICATES = [
    ("all is well", OURS, None, False),
    ("a certificate that is not there", "tls { certificate none.pem; key good.key }", 'none.pem" cannot be read: open: not found', True),
    ("a key that is not there", "tls { certificate good.pem; key none.key }", 'none.key" cannot be read: open: not found', True),
    ("a file that is no certificate", "tls { certificate good.key; key good.key }", "there is no certificate in", True),
    ("a file that is no key", "tls { certificate good.pem; key good.pem }", "there is no private key in", True),
    ("a key with a passphrase", "tls { certificate good.pem; key locked.key }", "without a passphrase", True),
    ("a key too short", "tls { certificate short.pem; key short.key }", "cannot be used: EC on P-256", True),
    ("a certificate signed with SHA-1", "tls { certificate sha1.pem; key sha1.key }", "sha1.pem\", or one behind it, is too weak", True),
    ("a weak certificate behind it", "tls { certificate chain.pem; key good.key }", "chain.pem\", or one behind it, is too weak", True),
    ("a key that others can read", "tls { certificate open.pem; key open.key }", "others can read the secret file", True),
    ("a key of another certificate", "tls { certificate good.pem; key other.key }", "other.key\" is not the key of the certificate", True),
    ("a certificate that has ended", "tls { certificate ended.pem; key ended.key }", "ended 1 day ago", False),
    ("a certificate that will soon have ended", "tls { certificate soon.pem; key soon.key }", "ends in 12 days", False),
    ("none for our name", "tls { certificate other.pem; key other.key }", 'is for its name "mx.example.org"', False),
    ("one that we would sign, on a submission port", "listen submission { address :2587 }; users file users", "nobody vouches for", False),
    ("one signed by itself, on a submission port",
     "listen submission { address :2587; tls { certificate good.pem; key good.key } }; users file users", "nobody vouches for", False),
    ("one that somebody vouches for, on a submission port",
     "listen submission { address :2587; tls { certificate signed.pem; key signed.key } }; users file users", None, False),
    ("authorities that are none", "listen mx b { address :2526; client-certificates ask bad.pem }", "no certificate that can be read", True),
    ("a secret for authorities", "listen mx b { address :2526; client-certificates ask good.key }", "holds a private key", True),
    ("other hosts' certificates", "listen mx b { address :2526; client-certificates require other.pem }", "other mail hosts show no", False),
    ("authorities", "listen mx b { address :2526; client-certificates ask other.pem }", None, False),
]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("good", "open"):
        make_certificate(folder, name)
    (folder / "open.key").chmod(0o644)
    make_certificate(folder, "other", host="other.example.org")
    make_certificate(folder, "signed", issuer="other")
    (folder / "users").touch(0o600)
    make_certificate(folder, "short", key=("rsa:1024",))
    make_certificate(folder, "sha1", issuer="other", digest="sha1")
    (folder / "chain.pem").write_bytes((folder / "good.pem").read_bytes() + (folder / "short.pem").read_bytes())
    make_certificate(folder, "ended", days=-1)
    make_certificate(folder, "soon", days=13)
    subprocess.run(["openssl", "pkey", "-in", folder / "good.key", "-aes128", "-passout", "pass:x", "-out", folder / "locked.key"],
                   check=True, capture_output=True)
    (folder / "bad.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return folder


@pytest.mark.parametrize(("why", "more", "words", "is_error"), CERTIFICATES, ids=[case[0] for case in CERTIFICATES])
def test_certificates(certificates, why, more, words, is_error):
    state = f"state {certificates}\n"
    result, path = check(certificates, GOOD + more + "\n" + state)
    said = [line for line in (result.stdout + result.stderr).splitlines() if re.match(rf"{path}:\d+:\d+: ", line)]
    assert result.returncode == (78 if is_error else 0), said
    assert len(said) == (words is not None), said
    if words:
        # What the listener shows is told where the listener is.
        assert said[0].startswith(f"{path}:{2 if 'its name' in words else LINE}:") and words in said[0], said
        assert ("warning: " in said[0]) != is_error


def test_there_are_enough_kinds():
    assert len({case[0] for case in BROKEN}) >= 40
    print(f"{len(BROKEN)} kinds of broken configuration, {sum(case[4] is not None for case in BROKEN)} with a suggestion")
