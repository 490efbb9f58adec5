"""The crash harness of tests/crash in small counts, and what it found; tests/crash/run alone takes any counts."""
import os
import pathlib
import subprocess
import sys

import pytest

from crash.disks import LossyFolder, can_mount, compiled_lossy
from crash.faults import kill_everything
from crash.servers import PostriderServer
from harness import binary, free_port, wait_until

RUN = pathlib.Path(__file__).resolve().parent / "crash/run"

pytestmark = pytest.mark.skipif(not can_mount(), reason="only root can mount a loop device")


def run(*words):
    result = subprocess.run([sys.executable, str(RUN), *words], capture_output=True, text=True, timeout=900, check=False,
                            env=dict(os.environ, POSTRIDER_RELEASE=str(binary("RELEASE"))))
    return result.returncode, result.stdout + result.stderr


def test_nothing_is_lost_when_processes_and_disks_fail():
    code, output = run("--kills", "20", "--shutdowns", "6", "--power-losses", "10", "--full", "1", "--starve", "2")
    print(output)
    assert code == 0, output


def test_the_harness_sees_what_is_lost():
    """A server whose syncs do nothing loses mail at a power loss: a harness that says nothing then would say nothing ever."""
    code, output = run("--liar", "--only", "ext4", "--kills", "0", "--shutdowns", "3", "--power-losses", "0", "--full", "0",
                       "--starve", "0")
    assert code == 1 and " lost: " in output, output


def test_directories_have_names_on_disk_before_mail_is_accepted(tmp_path):
    """The supervisor made the spool's and the Maildirs' directories, and synced those above them never."""
    with LossyFolder(tmp_path, compiled_lossy(tmp_path)) as disk:
        server = PostriderServer(tmp_path / "server", disk, free_port(), {})
        server.start()
        try:
            server.send(to=["ok@local.test", "x@elsewhere.test"])
            server.wait_for_mail()
            wait_until(lambda: {to for _, to in server.pending()} == {"x@elsewhere.test"}, 30, "one that is delivered")
            disk.fail()
        finally:
            kill_everything(server)
        disk.come_back()
        assert len(server.mails()) == 1, "the Maildir is gone"
        assert {to for _, to in server.pending()} == {"x@elsewhere.test"}, "the spool is gone"
        assert not server.unsound
        print(f"all that was not synced is lost: {disk.losses}")
