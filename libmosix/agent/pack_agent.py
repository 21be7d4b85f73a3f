"""Turns the linked agent into a C++ source: its bytes and the offsets of its entry points.

Also the keeper of the agent's laws that a linker cannot check: no relocations, no undefined symbols, no
floating point or vector instructions, and not more bytes than its place in the window.
"""
import re
import subprocess
import sys

elf, objcopy, output = sys.argv[1:4]
MAX_BYTES = 64 << 10
ENTRIES = [
    "agent_entry_deputy", "agent_entry_teardown", "agent_entry_batch", "agent_led_syscall", "agent_led_trap",
    "agent_call_check", "agent_call_syscall", "agent_call_end", "agent_call_abort",
    "agent_enter_check", "agent_enter_syscall", "agent_enter_end", "agent_enter_abort",
    "agent_on_signal", "agent_restorer",
    "agent_direct", "agent_direct_receive_check", "agent_direct_receive_end", "agent_direct_receive_abort",
]


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


relocations = run("readelf", "-rW", elf)
if "no relocations" not in relocations:
    sys.exit("the agent has relocations:\n" + relocations)
symbols = {}
for line in run("nm", elf).splitlines():
    fields = line.split()
    if fields[0] == "U":
        sys.exit("the agent needs a symbol it has not: " + line)
    if len(fields) == 3:
        symbols[fields[2]] = int(fields[0], 16)
vector = re.findall(r"^.*%[xyz]mm\d.*$", run("objdump", "-d", elf), re.M)
if vector:
    sys.exit("the agent uses vector registers, which are the guest's:\n" + vector[0])

run(objcopy, "-O", "binary", "-j", ".text", elf, output + ".bin")
with open(output + ".bin", "rb") as image_file:
    image = image_file.read()
if len(image) > MAX_BYTES:
    sys.exit(f"the agent is {len(image)} bytes, its place has {MAX_BYTES}")

with open(output, "w") as out:
    out.write('#include "libmosix/agent/agent_image.h"\n\nnamespace mosix {\n')
    out.write("namespace {\nalignas(64) const uint8_t kBytes[] = {\n")
    for at in range(0, len(image), 20):
        out.write("  " + "".join(f"{byte}," for byte in image[at:at + 20]) + "\n")
    out.write("};\n}  // namespace\n\nconst AgentImage kAgentImage = {\n")
    out.write("    .bytes = kBytes,\n    .size = sizeof kBytes,\n")
    for name in ENTRIES:
        out.write(f"    .{name.removeprefix('agent_')} = 0x{symbols[name]:x},\n")
    out.write("};\n\n}  // namespace mosix\n")
