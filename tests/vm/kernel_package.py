"""Debian 12's own kernel, 6.1, out of its package: fetched, unpacked beside the build and never installed.

The cloud kernel is the small one (27 MB to fetch): it boots without a disk, and what an emulated node needs
beyond it are a few modules. The version moves with Debian's security updates and is asked of apt.
"""
import os
import re
import shutil
import subprocess

SERIES = '6.1'
META_PACKAGE = 'linux-image-cloud-amd64'


class Unavailable(Exception):
    """There is no such kernel here; the text says why. A reason to skip, not a failure."""


class Kernel:
    """An unpacked package: `version` as uname -r says it, `image` for the emulator, `folder` with lib/modules."""

    def __init__(self, folder, version):
        self.folder, self.version = folder, version
        self.image = f'{folder}/boot/vmlinuz-{version}'

    def modules(self, names):
        """Paths below `folder` of the modules that `names` need, in the order in which to load them."""
        paths = []
        for name in names:
            text = _output(['modprobe', '-d', self.folder, '-S', self.version, '--show-depends', name], 10)
            for path in re.findall(r'^insmod (\S+)', text, re.M):
                path = os.path.relpath(path, self.folder)
                if path not in paths:
                    paths.append(path)
        return paths


def _output(command, limit):
    # depmod and modprobe live where an ordinary user's PATH does not look.
    environment = dict(os.environ, LC_ALL='C', PATH=os.environ.get('PATH', '') + ':/usr/sbin:/sbin')
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=limit, check=False)
    except FileNotFoundError:
        raise Unavailable(f'{command[0]} is not installed: scripts/setup.sh --vm') from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f'{command[0]} took longer than {limit} s') from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ['without a word']
        raise Unavailable(f'{" ".join(command[:2])} failed: {lines[-1]}')
    return done.stdout


def _package_name():
    text = _output(['apt-cache', 'depends', META_PACKAGE], 30)
    found = re.search(r'Depends: (linux-image-(' + re.escape(SERIES) + r'\.\S+))', text)
    if not found:
        raise Unavailable(f'{META_PACKAGE} is no {SERIES} kernel here, or apt has no lists: scripts/setup.sh --vm')
    return found.group(1), found.group(2)


def _cached(cache):
    """Versions that lie unpacked in the cache, the youngest last."""
    if not os.path.isdir(cache):
        return []
    return sorted((name for name in os.listdir(cache) if name.startswith(SERIES + '.')),
                  key=lambda name: [int(number) for number in re.findall(r'\d+', name)])


def kernel(cache):
    """The kernel that apt names now, or one that was fetched before. Raises Unavailable."""
    try:
        package, version = _package_name()
        if version not in _cached(cache):
            _fetch(cache, package, version)
    except Unavailable:
        if not _cached(cache):
            raise
        version = _cached(cache)[-1]
    return Kernel(os.path.join(cache, version), version)


def _fetch(cache, package, version):
    work = os.path.join(cache, 'fetching')
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work + '/unpacked')
    here = os.getcwd()
    os.chdir(work)  # apt-get download knows no other place
    try:
        _output(['apt-get', '-q', 'download', package], 120)
    finally:
        os.chdir(here)
    files = [name for name in os.listdir(work) if name.endswith('.deb')]
    _output(['dpkg-deb', '-x', os.path.join(work, files[0]), work + '/unpacked'], 60)
    _output(['depmod', '-b', work + '/unpacked', version], 60)
    os.rename(work + '/unpacked', os.path.join(cache, version))
    shutil.rmtree(work, ignore_errors=True)
