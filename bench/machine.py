"""What the works run on: a world of their own beside the machine, a disk, and the accounts of processor and memory.

The world is made of namespaces: a network with nothing but loopback, so that no packet leaves and every port is free; mounts
of which nobody else sees any, /etc and /usr among them as overlays, so that each peer lies where it was built to lie and the
machine's own mail server is not touched; processes of its own, so that all end when the first one ends, however it ends. The
loop device goes with the last mount.
"""
import contextlib
import ctypes
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time

PORT = 2525         # where the server under test listens
SINK = 2600         # next hops listen here and on the ports behind it
NEXT_HOPS = 8
CLOSED = 2690       # nobody listens here
MARK = "POSTRIDER_BENCH_WORLD"


def sh(*words, **more):
    words = [str(word) for word in words]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **more)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()[-300:]}")
    return done.stdout


def enter_world(folder):
    """Starts this program again in namespaces; comes back only there."""
    if os.environ.get(MARK) != str(folder):
        os.environ[MARK] = str(folder)
        os.execvp("unshare", ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation",
                              "private", sys.executable, *sys.argv])
    reap()
    (folder / "world").mkdir(exist_ok=True)
    sh("mount", "-t", "tmpfs", "-o", "mode=755", "bench", folder / "world")
    for name in ("etc", "usr"):
        for part in ("upper", "work"):
            (folder / "world" / name / part).mkdir(parents=True)
        at = folder / "world" / name
        sh("mount", "-t", "overlay", "overlay", "-o", f"lowerdir=/{name},upperdir={at}/upper,workdir={at}/work", f"/{name}")
    for path in ("/run", "/var/spool", "/var/lib"):
        sh("mount", "-t", "tmpfs", "-o", "mode=755", "bench", path)
    sh("ip", "link", "set", "lo", "up")
    for name, words in (("ipv4/ip_local_port_range", "10000 65000"), ("core/somaxconn", "8192"), ("ipv4/tcp_max_syn_backlog", "8192")):
        pathlib.Path("/proc/sys/net", name).write_text(words, encoding="ascii")
    for name, words in (("hosts", "127.0.0.1 localhost mta.bench.test\n"), ("resolv.conf", "nameserver 127.0.0.1\n")):
        path = pathlib.Path("/etc", name)
        path.unlink(missing_ok=True)  # it may be a link to another place
        path.write_text(words, encoding="ascii")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def reap():
    """The first process of the world waits for orphans; another one does the work."""
    child = os.fork()
    if child:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: os.kill(child, signal.SIGTERM))
        while True:
            pid, status = os.wait()
            if pid == child:
                os._exit(os.waitstatus_to_exitcode(status) & 255)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def install(root):
    """Lays what dpkg -x unpacked over this world's /etc and /usr."""
    for name in ("etc", "usr", "lib"):
        if (root / name).is_dir():
            sh("cp", "-a", f"{root / name}/.", f"/usr/{name}" if name == "lib" else f"/{name}")


def add_group(name):
    sh("groupadd", "-f", "-r", name)


def add_user(name):
    add_group(name)
    if subprocess.run(["id", name], capture_output=True, check=False).returncode:
        sh("useradd", "-r", "-M", "-d", "/nonexistent", "-s", "/usr/sbin/nologin", "-g", name, name)


def forget():
    """What was written before is on the disk and no longer in the machine's memory: or the next would wait for its writing, and
    whoever came after a heavy work would pay for it. The page cache would also grow into memory that a virtual machine has to
    get back from its host: nearly seven times as dear as other memory, and the rate falls by two fifths."""
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("5", encoding="ascii")  # 1, and 4: without a line in the kernel's log


class Disk:
    """A journalled ext4 on a loop device. Without a journal, ext4 looks through the inodes deleted in the last minutes whenever
    it makes a file: queues of one file a message would suffer from that, and from nothing that happens in production."""

    def __init__(self, folder, gib):
        self.image, self.at = folder / "image", folder / "disk"
        self.at.mkdir(exist_ok=True)
        if not self.image.exists() or self.image.stat().st_size != gib << 30:
            self.write_image(gib)

    def write_image(self, gib):
        """Every block of it is written once, or whoever comes first to a place would pay for making it one."""
        zeros, new = bytes(1 << 20), self.image.with_suffix(".new")
        print(f"writes {gib} GiB of zeros into {self.image}, once", flush=True)
        with open(new, "wb") as file:
            for step in range(gib << 10):
                file.write(zeros)
                if step % 1024 == 1023:  # little by little, so that the machine's memory is not full of them
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        new.rename(self.image)

    @contextlib.contextmanager
    def fresh(self):
        forget()
        # Nothing is discarded, or the image would become sparse and grow under the work; nothing is initialised in the background.
        sh("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", self.image)
        sh("mount", "-o", "loop,noinit_itable", self.image, self.at)
        try:
            yield self.at
        finally:
            until = time.monotonic() + 30  # processes that were told to end may still be ending
            while subprocess.run(["umount", self.at], capture_output=True, check=False).returncode:
                if time.monotonic() > until:
                    sys.exit(f"{self.at} stays busy")
                time.sleep(0.05)

    def kept(self):
        """Bytes in files and folders, by the file system's own count."""
        return int(sh("df", "--output=used", "-B1", self.at).split()[-1])


class Group:
    """A control group: which processes belong together, and what processor time they took."""

    def __init__(self, name):
        root = next((line.split()[1] for line in open("/proc/self/mounts", encoding="ascii") if line.split()[2] == "cgroup2"), None)
        if not root:
            sys.exit("no control groups (version 2) are mounted: processor time cannot be told apart")
        self.at = pathlib.Path(root) / f"postrider-bench.{os.environ['POSTRIDER_BENCH_ID']}.{name}"
        self.at.mkdir(exist_ok=True)

    def join(self):  # in the child, before it becomes the program
        (self.at / "cgroup.procs").write_text("0", encoding="ascii")

    def pids(self):
        return [int(pid) for pid in (self.at / "cgroup.procs").read_text(encoding="ascii").split()]

    def seconds(self):
        return int((self.at / "cpu.stat").read_text(encoding="ascii").split()[1]) / 1e6

    def stop(self, grace=20):
        """Each process by its id; those of them that do not end, for good."""
        for number, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 20)):
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            until = time.monotonic() + wait
            while self.pids() and time.monotonic() < until:
                time.sleep(0.02)

    def memory(self):
        """(now, at most) in bytes: what its processes hold, shared pages divided among them; and that much more as each process
        once held more than now."""
        now = more = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                now += 1024 * field(f"/proc/{pid}/smaps_rollup", "Pss:")
                more += 1024 * (field(f"/proc/{pid}/status", "VmHWM:") - field(f"/proc/{pid}/status", "VmRSS:"))
        return now, now + more

    def remove(self):
        with contextlib.suppress(OSError):
            self.at.rmdir()


def field(path, name):
    with open(path, encoding="utf-8") as file:
        return next((int(line.split()[1]) for line in file if line.startswith(name)), 0)


def machine_seconds():
    """Processor time that anything on this machine took."""
    with open("/proc/stat", encoding="ascii") as file:
        words = file.readline().split()
    return sum(int(word) for word in (*words[1:4], *words[6:9])) / os.sysconf("SC_CLK_TCK")


def established(port):
    """How many connections to this port are open."""
    wanted = f":{port:04X}"
    with open("/proc/net/tcp", encoding="ascii") as file:
        return sum(1 for line in file if (words := line.split())[1].endswith(wanted) and words[3] == "01")


def greets(port, until):
    """Seconds of time.monotonic() when the server said 220; None: it did not."""
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as s:
            if s.recv(512).startswith(b"220"):
                return time.monotonic()
        time.sleep(0.005)
    return None


def facts():
    """What a reader of the figures wants to know of the machine."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown")
    return {"processor": model, "processors": len(os.sched_getaffinity(0)), "kernel": os.uname().release,
            "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
            "file_system": "ext4 with journal, on a loop device", "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime())}
