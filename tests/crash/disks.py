"""Disks that fail: file systems on a loop device, shut down by ioctl; and one that forgets what was not synced (lossy.c).

Each is mounted at `at`. fail() is the moment at which it begins to fail; come_back() mounts what is left, once nobody has
it open any more.
"""
import errno
import fcntl
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess

from harness import wait_until

HERE = pathlib.Path(__file__).resolve().parent
MIB = 1 << 20
SHUT_DOWN = 0x8004587D  # _IOR('X', 125, __u32): the same number for ext4 and XFS
FLAGS = {0: "all flushed", 1: "log flushed", 2: "nothing flushed"}


def can_mount():
    return os.geteuid() == 0 and pathlib.Path("/dev/loop-control").exists()


def compiled(source, target, *flags):
    """A program or library of this folder."""
    subprocess.run([os.environ.get("CC", "cc"), "-std=c17", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-O2", "-Wall", "-Wextra",
                    "-Wshadow", "-Wconversion", "-Werror", str(HERE / source), "-o", str(target), *flags], check=True)
    return str(target)


def compiled_lossy(folder):
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True, check=True)
    return compiled("lossy.c", pathlib.Path(folder) / "lossy", *flags.stdout.split())


def unmount(at):
    return subprocess.run(["umount", str(at)], capture_output=True, check=False).returncode == 0


def unmount_lazily(at):
    subprocess.run(["umount", "--lazy", str(at)], capture_output=True, check=False)


def loops_of(image):
    """The loop devices that have this file, as `losetup` lists them."""
    return subprocess.run(["losetup", "-j", str(image)], capture_output=True, check=True).stdout


class LoopDisk:
    """A small file system of its own, in a file."""

    def __init__(self, folder, kind="ext4", mebibytes=1024, at=None):
        self.kind = kind
        self.image, self.at = pathlib.Path(folder) / "image", pathlib.Path(at or pathlib.Path(folder) / "disk")
        self.at.mkdir(parents=True)
        self.make_image(mebibytes)
        options = {"ext4": ["-q", "-F", "-m", "0"], "xfs": ["-q"], "btrfs": ["-q"]}[kind]
        subprocess.run([f"mkfs.{kind}", *options, str(self.image)], check=True, capture_output=True)

    def make_image(self, mebibytes):
        with open(self.image, "wb") as image:
            image.truncate(mebibytes * MIB)

    def __enter__(self):
        self.mount()
        return self

    def __exit__(self, *_):
        unmount_lazily(self.at)

    def mount(self):
        subprocess.run(["mount", "-t", self.kind, "-o", "loop", str(self.image), str(self.at)], check=True)

    def fail(self, chooser=None):
        """
        Shuts the file system down, as if the power had failed: what was not synced is lost, or not, as the flag says, and every
        call fails from now on. Returns what was done.
        """
        flag = chooser.choice([2, 2, 2, 1, 0]) if chooser else 2
        fd = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUT_DOWN, struct.pack("I", flag))
        finally:
            os.close(fd)
        return f"shutdown, {FLAGS[flag]}"

    def come_back(self):
        wait_until(lambda: unmount(self.at), 60, f"{self.at} is not in use")
        # A mount namespace that somebody made meanwhile has a copy of it, and would give us the failed file system again.
        wait_until(lambda: not loops_of(self.image), 60, f"{self.image} is not in use")
        self.mount()


def can_shut_down(kind, folder):
    """Whether this kernel mounts that file system, and knows the ioctl for it: None, or why not."""
    folder = pathlib.Path(folder) / f"probe-{kind}"
    try:
        disk = LoopDisk(folder, kind, 512)
        with disk:
            fd = os.open(disk.at, os.O_RDONLY)
            try:
                fcntl.ioctl(fd, SHUT_DOWN, struct.pack("I", 2))
            finally:
                os.close(fd)
    except subprocess.CalledProcessError as failed:
        return f"not mounted by this kernel: {failed.stderr or failed}"
    except FileNotFoundError:
        return f"no mkfs.{kind} here"
    except OSError as failed:
        return f"no such ioctl: {errno.errorcode[failed.errno]}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


class LossyFolder:
    """lossy.c's file system; its files lie below `folder`. Without a seed, a power loss takes all that was not synced."""
    kind = "lossy"

    def __init__(self, folder, program, seed=None, sector=None):
        self.program, self.seed, self.sector = program, seed, [str(sector)] if sector else []
        self.tree, self.at = pathlib.Path(folder) / "tree", pathlib.Path(folder) / "disk"
        self.at.mkdir(parents=True)
        self.process = None
        self.losses = []  # what each power loss took

    def __enter__(self):
        self.mount()
        return self

    def __exit__(self, *_):
        unmount_lazily(self.at)
        self.process.communicate(timeout=60)

    def mount(self):
        shutil.rmtree(self.tree / "lost", ignore_errors=True)
        self.seed = None if self.seed is None else self.seed + 1
        assert self.process is None or self.process.poll() is not None
        self.process = subprocess.Popen([self.program, str(self.seed or 0), str(self.tree), str(self.at), *self.sector],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        wait_until(lambda: os.path.ismount(self.at) or self.process.poll() is not None, 30, "a mounted lossy file system")
        assert self.process.poll() is None

    def fail(self, _=None):
        self.process.send_signal(signal.SIGUSR1)
        return "power loss"

    def come_back(self):
        wait_until(lambda: unmount(self.at), 60, f"{self.at} is not in use")
        output, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, f"lossy ended with {self.process.returncode}"
        self.losses.append(json.loads(output))
        self.mount()


class LossyBlocks(LoopDisk):
    """
    A file system on a loop device whose blocks lie in a lossy file: any subset of its unsynced blocks is lost. Whole blocks of
    4 KiB, since file systems rely on their superblock not being torn.
    """

    def __init__(self, folder, program, seed, kind, mebibytes=1024):
        self.below = LossyFolder(pathlib.Path(folder) / "below", program, seed, 4096)
        self.below.mount()
        super().__init__(folder, kind, mebibytes)

    def make_image(self, mebibytes):
        self.image = self.below.at / "image"
        super().make_image(mebibytes)

    def __exit__(self, *_):
        unmount_lazily(self.at)
        self.below.__exit__()

    @property
    def losses(self):
        return self.below.losses

    def fail(self, _=None):
        return self.below.fail()

    def come_back(self):
        wait_until(lambda: unmount(self.at), 60, f"{self.at} is not in use")
        self.below.come_back()
        self.mount()
