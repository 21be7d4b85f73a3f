#!/usr/bin/env python3
"""Each option that a command's --help names stands in its manual page, and each page is well formed."""

import os
import re
import shutil
import subprocess
import unittest

SOURCE = os.environ.get("MOSIX_SOURCE", os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
COMMANDS = ("mosrun", "migrate", "mosps", "mosctl", "mostrace")
SUBCOMMANDS = {"mosctl": ("status", "nodes", "where", "why", "check", "key")}
PAGES = [command + ".1" for command in COMMANDS] + ["libmosix.7"]


def page(name):
    with open(os.path.join(SOURCE, "man", name), encoding="utf-8") as file:
        return file.read()


def plain(text):
    """The page's words, without font changes and escapes."""
    text = re.sub(r"\\f[BIRP]", "", text).replace("\\-", "-").replace('"', "").replace(" , ", " ")
    return re.sub(r"(?m)^\.(B|I|BR|BI|RB|IR|TP|SS|SH)\b", "", text)


def options_of(command, *words):
    result = subprocess.run([command, *words, "--help"], stdout=subprocess.PIPE, text=True, timeout=30, check=True)
    # at the left edge of the text, or after a comma there
    options = set()
    for line in result.stdout.splitlines():
        head = re.match(r"\s+(-\S.*?)(\s{2,}|$)", line)
        if head:
            options |= set(re.findall(r"(?:^|[\s,])(--?[A-Za-z][A-Za-z-]*)", head.group(1)))
    return options


class Man(unittest.TestCase):
    def test_every_option_is_in_the_manual(self):
        for command in COMMANDS:
            text = plain(page(command + ".1"))
            options = options_of(command)
            for subcommand in SUBCOMMANDS.get(command, ()):
                options |= options_of(command, subcommand)
                self.assertRegex(text, rf"(?m)^\s*{subcommand}\b")
            self.assertIn("--help", options)
            self.assertIn("--version", options)
            for option in sorted(options):
                with self.subTest(command=command, option=option):
                    self.assertRegex(text, rf"(?<![\w-]){re.escape(option)}(?![\w-])")

    def test_every_exit_code_of_help_is_in_the_manual(self):
        for command in COMMANDS:
            text = subprocess.run([command, "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout
            codes = set(re.findall(r"\b(12[5-7]|[0-7])  ?[a-z]", text[text.find("Exit status"):]))
            self.assertTrue(codes, command)
            section = page(command + ".1").split("EXIT STATUS")[1].split("\n.SH")[0]
            for code in codes:
                self.assertRegex(section, rf"\b{code}\b", command)

    @unittest.skipUnless(shutil.which("groff"), "no groff")
    def test_pages_are_well_formed(self):
        for name in PAGES:
            result = subprocess.run(["groff", "-man", "-ww", "-Tutf8", os.path.join(SOURCE, "man", name)],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=True)
            self.assertEqual(result.stderr, "", name)
            for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"):
                if name != "mosctl.1" or section != "DESCRIPTION":
                    self.assertIn(f".SH {section}\n", page(name), name)


if __name__ == "__main__":
    unittest.main()
