#!/usr/bin/env python3
"""Inputs for the programs of list.tsv, the same on every run.

  make_input.py text MB            lines of words to standard output
  make_input.py tree COUNT DIR     folders and files
  make_input.py source LINES       a C++ program of about so many lines
"""
import os
import random
import sys


def text(megabytes):
    generator = random.Random(42)
    words = [''.join(generator.choice('abcdefghijklmnopqrstuvwxyz') for _ in range(generator.randint(2, 11)))
             for _ in range(5000)]
    written, out = 0, sys.stdout
    while written < megabytes * 1_000_000:
        line = ' '.join(generator.choices(words, k=9)) + '\n'
        out.write(line)
        written += len(line)


def tree(count, folder):
    generator = random.Random(7)
    for index in range(count):
        path = os.path.join(folder, f'd{index % 13}', f'e{index % 5}')
        os.makedirs(path, exist_ok=True)
        name = os.path.join(path, f'file{index}.txt')
        with open(name, 'w') as file:
            file.write(f'line of file {index}\n' * generator.randint(1, 400))
        os.chmod(name, 0o600 | generator.choice((0, 0o44, 0o111)))
        os.utime(name, (1_600_000_000 + index,) * 2)
        if index % 20 == 0:
            os.symlink(f'file{index}.txt', name + '.link')


def source(lines):
    print('#include <algorithm>\n#include <cstdio>\n#include <map>\n#include <numeric>\n#include <string>\n'
          '#include <vector>\n')
    count = lines // 10
    for index in range(count):
        print(f'''static long step_{index}(long value) {{
  std::vector<long> row;
  for (long i = 0; i < {index % 7 + 3}; ++i)
    row.push_back((value + i) * {index + 3} % 10007);
  std::sort(row.begin(), row.end());
  const long sum = std::accumulate(row.begin(), row.end(), 0L);
  static std::map<long, std::string> names;
  names[sum] = std::to_string(value);
  return (sum + static_cast<long>(names.size())) % 1000003;
}}''')
    print('int main() {\n  long value = 1;')
    for index in range(count):
        print(f'  value = step_{index}(value);')
    print('  std::printf("%ld\\n", value);\n  return 0;\n}')


def main():
    what, amount = sys.argv[1], int(sys.argv[2])
    if what == 'tree':
        tree(amount, sys.argv[3])
    else:
        {'text': text, 'source': source}[what](amount)


main()
