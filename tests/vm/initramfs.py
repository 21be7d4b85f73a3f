"""The root file system of an emulated node: programs with the libraries that they are linked with, files and
links, written as the archive that Linux unpacks into memory as it boots (Documentation/driver-api/early-userspace/
buffer-format.rst). Not compressed: the emulated processor would take seconds to undo it.
"""
import os
import re
import stat
import subprocess


class Tree:
    """What the node shall find, by its path there."""

    def __init__(self):
        self.folders, self.links, self.files = set(), {}, {}  # files: path -> (source or bytes, mode)

    def add_folder(self, path):
        while path not in ('', '/'):
            self.folders.add(path)
            path = os.path.dirname(path)

    def add_link(self, path, target):
        self.add_folder(os.path.dirname(path))
        self.links[path] = target

    def add_text(self, path, text, mode=0o644):
        self.add_folder(os.path.dirname(path))
        self.files[path] = (text.encode(), mode)

    def add_file(self, path, source):
        self.add_folder(os.path.dirname(path))
        self.files[path] = (source, stat.S_IMODE(os.stat(source).st_mode))

    def add_program(self, path, source):
        """The program, and its libraries where its loader looks for them. Folders of the root are links into /usr,
        on every Debian that we build on."""
        self.add_file(path, source)
        text = subprocess.run(['ldd', source], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              check=False).stdout
        for library in re.findall(r'(/\S+) \(0x', text):
            here = library if library.startswith('/usr/') else '/usr' + library
            self.add_file(here, os.path.realpath(library))

    def strip(self, folder):
        """Leaves debugging information out: it is most of what we build. Stripped copies lie in `folder`."""
        os.makedirs(folder, exist_ok=True)
        for path, (source, mode) in self.files.items():
            if isinstance(source, bytes) or mode & 0o111 == 0:
                continue
            copy = os.path.join(folder, path.replace('/', '%'))
            done = subprocess.run(['strip', '--strip-debug', '-o', copy, source], stderr=subprocess.DEVNULL,
                                  check=False)
            if done.returncode == 0:
                self.files[path] = (copy, mode)

    def write(self, target):
        with open(target, 'wb') as archive:
            writer = _Writer(archive)
            for path in sorted(self.folders):
                writer.put(path, stat.S_IFDIR | 0o755, b'')
            for path, (source, mode) in sorted(self.files.items()):
                writer.put(path, stat.S_IFREG | mode, source if isinstance(source, bytes) else _contents(source))
            for path, link in sorted(self.links.items()):
                writer.put(path, stat.S_IFLNK | 0o777, link.encode())
            writer.put('TRAILER!!!', 0, b'')


def _contents(path):
    with open(path, 'rb') as file:
        return file.read()


class _Writer:
    """The "newc" format: a header of hexadecimal words, the name, the contents, each padded to four bytes."""

    def __init__(self, archive):
        self.archive, self.inode = archive, 0

    def put(self, path, mode, data):
        self.inode += 1
        name = path.lstrip('/').encode() + b'\0'
        words = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        header = b'070701' + b''.join(b'%08x' % word for word in words)
        self.archive.write(header + name + bytes(-(len(header) + len(name)) % 4))
        self.archive.write(data + bytes(-len(data) % 4))
