// mosix-table: prints the table of system calls, as text for the terminal, as JSON for programs, or as
// Markdown, of which docs/syscalls.md is made (scripts/update-syscalls-doc.sh; a test compares the two).
// A developer's tool: it asks nobody, and is not installed.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "libmosix/syscalls/errno_names.h"
#include "libmosix/syscalls/table.h"

namespace mosix {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::pair<uint32_t, std::string_view> kEffects[] = {
    {kMayBlock, "may block"},
    {kAddsFd, "adds fd"},
    {kRemovesFd, "removes fd"},
    {kChangesMaps, "changes maps"},
    {kChangesMask, "mask for its time"},
    {kPure, "pure"},
    {kMayBePartial, "may be partial"},
    {kTimed, "timed"},
};

constexpr std::string_view kSplitNames[] = {
    "-",     "mmap",       "clone",     "fork",        "vfork",     "clone3",     "execve",     "execveat",
    "exit",  "exit_group", "sigaction", "sigprocmask", "sigreturn", "sigsuspend", "timed mask", "itimer",
    "times", "wait",       "restart",   "rlimit",      "prctl",     "memory",     "lock",       "key",
};
static_assert(std::size(kSplitNames) == static_cast<size_t>(Split::kProtectionKey) + 1);

std::string_view where_name(Where where) {
  switch (where) {
    case Where::kHere:
      return "here";
    case Where::kHome:
      return "home";
    case Where::kSplit:
      return "split";
    case Where::kBringHome:
      return "bring home";
    case Where::kRefuse:
      return "refuse";
  }
  return "?";
}

std::string where_text(const SyscallRow& row) {
  if (row.where == Where::kSplit)
    return fmt::format("split: {}", kSplitNames[static_cast<size_t>(row.split)]);
  if (row.where == Where::kRefuse) return fmt::format("refuse: {}", errno_name(row.refusal));
  return std::string(where_name(row.where));
}

std::string effects_text(const SyscallRow& row) {
  std::string text;
  for (const auto& [bit, name] : kEffects)
    if ((row.effects & bit) != 0) text += fmt::format("{}{}", text.empty() ? "" : ", ", name);
  return text;
}

std::string_view direction_name(Direction direction) {
  static constexpr std::string_view kNames[] = {"", "in", "out", "inout"};
  return kNames[static_cast<size_t>(direction)];
}

std::string_view kind_name(ArgKind kind) {
  static constexpr std::string_view kNames[] = {"none",  "value",  "hex",     "fd",           "dirfd",
                                                "pid",   "signal", "string",  "bytes",        "strings",
                                                "iovec", "msghdr", "mmsghdr", "local pointer"};
  return kNames[static_cast<size_t>(kind)];
}

/// "144", "count", "12*maxevents, then 12*result", "*addrlen".
std::string size_text(const SyscallRow& row, const ArgSize& size) {
  if (size.kind == SizeKind::kNone) return "";
  if (size.kind == SizeKind::kConst) return std::to_string(size.bytes);
  if (size.kind == SizeKind::kCountInside)
    return fmt::format("{}+{}*the u32 at {}", size.head, size.bytes, size.arg);
  const std::string_view named = row.args[size.arg].name;
  const std::string head = size.head == 0 ? "" : fmt::format("{}+", size.head);
  const std::string unit = size.bytes == 1 ? "" : fmt::format("{}*", size.bytes);
  switch (size.kind) {
    case SizeKind::kArg:
      return fmt::format("{}{}{}", head, unit, named);
    case SizeKind::kArgResult:
      return fmt::format("{0}{1}{2}, then {0}{1}result", head, unit, named);
    case SizeKind::kLengthAt:
      return fmt::format("*{}", named);
    default:
      return fmt::format("{} bits", named);
  }
}

/// "buf: out, count, then result".
std::string argument_text(const SyscallRow& row, const Arg& arg) {
  std::string text(arg.name);
  std::vector<std::string> words;
  const bool is_number = arg.kind == ArgKind::kValue || arg.kind == ArgKind::kHex;
  const bool says_itself = is_number || arg.name == kind_name(arg.kind) || arg.kind == ArgKind::kBuffer;
  if (!says_itself) words.emplace_back(kind_name(arg.kind));
  if (arg.direction != Direction::kNone && arg.kind != ArgKind::kString)
    words.emplace_back(direction_name(arg.direction));
  if (std::string size = size_text(row, arg.size); !size.empty()) words.push_back(std::move(size));
  if (!arg.decode.empty() && arg.decode != arg.name && arg.decode != kind_name(arg.kind))
    words.emplace_back(arg.decode);
  if (arg.out_on_error) words.emplace_back("after errors too");
  for (size_t i = 0; i < words.size(); ++i) text += (i == 0 ? ": " : ", ") + words[i];
  return text;
}

std::string arguments_text(const SyscallRow& row, std::string_view between) {
  std::string text;
  for (const Arg& arg : row.args) {
    if (arg.kind == ArgKind::kNone) break;
    text += fmt::format("{}{}", text.empty() ? "" : between, argument_text(row, arg));
  }
  return text;
}

// ---- Markdown -------------------------------------------------------------------------------------------

constexpr std::string_view kIntroduction = R"(# System calls

Printed from the table (`mosix-table --markdown`); change rows there, then run `scripts/update-syscalls-doc.sh`.

While a process is away, each of its calls runs where this page says: *here*, natively on the away node; at *home*,
made by the deputy as the arguments say; *split*, with both sides taking part in code of its own; or the process is
*brought home* and makes the call there. Calls are *refused* only where every Linux of today does. A number that is
not listed, and a command of a multiplexed call that has no row, brings home.

Memory calls that are *here* go unnoticed only where their numbers prove that they are private, anonymous and clear
of the agent; the supervisor looks at the others first.

Arguments are named after the manual pages. After the colon: what it is, in which direction bytes go, how many of
them before the call and after it, and how they are decoded. `*x` is the number behind the pointer `x`.
)";

std::string cell(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '|') escaped += '\\';
    escaped += c;
  }
  return escaped.empty() ? "-" : escaped;
}

void print_markdown_row(std::string_view key, const SyscallRow& row) {
  fmt::print("| {} | {} | {} | {} | {} | {} |\n", key, cell(arguments_text(row, "; ")), cell(row.returns),
             cell(where_text(row)), cell(effects_text(row)), cell(row.note));
}

void print_counts() {
  std::array<int, 5> counts{};
  int commands = 0;
  for (const SyscallRow& row : syscall_table()) {
    ++counts[static_cast<size_t>(row.where)];
    commands += static_cast<int>(command_table(row.number).size());
  }
  fmt::print("\n| where | calls |\n|---|---|\n");
  for (size_t i = 0; i < counts.size(); ++i)
    fmt::print("| {} | {} |\n", where_name(static_cast<Where>(i)), counts[i]);
  fmt::print("\nand {} commands of multiplexed calls.\n", commands);
}

std::string level_text(const CommandRow& command) {
  return command.level == 0 ? "" : fmt::format(" (level {})", command.level);
}

void print_markdown() {
  fmt::print("{}", kIntroduction);
  print_counts();
  fmt::print(
      "\n## Calls\n\n| call | arguments | returns | where | effects | note |\n|---|---|---|---|---|---|\n");
  for (const SyscallRow& row : syscall_table())
    print_markdown_row(fmt::format("{} `{}`", row.number, row.name), row);
  for (const SyscallRow& row : syscall_table()) {
    const auto commands = command_table(row.number);
    if (commands.empty()) continue;
    fmt::print(
        "\n## Commands of {}\n\n| command | arguments | returns | where | effects | note |\n"
        "|---|---|---|---|---|---|\n",
        row.name);
    for (const CommandRow& command : commands)
      print_markdown_row(fmt::format("`{}`{}", command.command_name, level_text(command)), command.row);
  }
}

// ---- JSON -----------------------------------------------------------------------------------------------

Json json_of(const SyscallRow& row) {
  Json args = Json::array();
  for (const Arg& arg : row.args) {
    if (arg.kind == ArgKind::kNone) break;
    Json one{{"name", arg.name}, {"kind", kind_name(arg.kind)}};
    if (arg.direction != Direction::kNone) one["direction"] = direction_name(arg.direction);
    if (arg.size.kind != SizeKind::kNone) one["size"] = size_text(row, arg.size);
    if (!arg.decode.empty()) one["decode"] = arg.decode;
    if (arg.out_on_error) one["out_on_error"] = true;
    args.push_back(std::move(one));
  }
  Json effects = Json::array();
  for (const auto& [bit, name] : kEffects)
    if ((row.effects & bit) != 0) effects.push_back(name);
  Json out{{"number", row.number}, {"name", row.name}, {"where", where_name(row.where)}};
  if (row.where == Where::kSplit) out["split"] = kSplitNames[static_cast<size_t>(row.split)];
  if (row.where == Where::kRefuse) out["errno"] = errno_name(row.refusal);
  out.update({{"returns", row.returns}, {"arguments", args}, {"effects", effects}});
  if (!row.note.empty()) out["note"] = row.note;
  return out;
}

void print_json() {
  Json calls = Json::array();
  for (const SyscallRow& row : syscall_table()) {
    Json one = json_of(row);
    for (const CommandRow& command : command_table(row.number)) {
      Json entry{{"command", command.command}, {"command_name", command.command_name}};
      if (command.level != 0) entry["level"] = command.level;
      entry.update(json_of(command.row));
      one["commands"].push_back(std::move(entry));
    }
    calls.push_back(std::move(one));
  }
  fmt::print("{}\n", calls.dump(2));
}

// ---- text -----------------------------------------------------------------------------------------------

void print_text() {
  for (const SyscallRow& row : syscall_table()) {
    fmt::print("{:>3} {:<24} {:<18} {}\n", row.number, row.name, where_text(row), arguments_text(row, "; "));
    for (const CommandRow& command : command_table(row.number)) {
      fmt::print("    {:<24} {:<18} {}\n", command.command_name, where_text(command.row),
                 arguments_text(command.row, "; "));
    }
  }
}

}  // namespace
}  // namespace mosix

int main(int argc, char** argv) {
  CLI::App app("Prints the table of system calls.", "mosix-table");
  app.set_version_flag("--version", MOSIX_VERSION);
  bool json = false, markdown = false;
  app.add_flag("--json", json, "as JSON");
  app.add_flag("--markdown", markdown, "as docs/syscalls.md")->excludes("--json");
  CLI11_PARSE(app, argc, argv);
  if (json)
    mosix::print_json();
  else if (markdown)
    mosix::print_markdown();
  else
    mosix::print_text();
  return std::fflush(stdout) == 0 && std::ferror(stdout) == 0 ? 0 : 1;
}
