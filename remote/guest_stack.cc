// libunwind with accessors of our own: memory comes from the guest by process_vm_readv, unwind tables from the
// .eh_frame_hdr that each module has mapped there, names from its dynamic symbols. Nothing is read from files:
// the guest's modules are memfds here, and its file names are home's.
#include "remote/guest_stack.h"

#include <elf.h>
#include <libunwind.h>

#include <cstdlib>
#include <cstring>

#include "libmosix/process/maps.h"
#include "libmosix/process/memory.h"
#include "libmosix/process/proc_stat.h"

// libunwind's own search through a table of a remote process; exported, but in no header.
extern "C" int _Ux86_64_dwarf_search_unwind_table(unw_addr_space_t, unw_word_t, unw_dyn_info_t*,
                                                  unw_proc_info_t*, int, void*);

namespace mosix {
namespace {

constexpr size_t kMaxFrames = 32;
constexpr uint8_t kTableEncoding = 0x3b;  // datarel | sdata4, sorted: what linkers write

struct Module {
  std::string name;
  uint64_t base = 0;  ///< where its ELF header is mapped
  uint64_t bias = 0;  ///< added to its own addresses
  std::vector<Elf64_Phdr> segments;
};

class Walker {
 public:
  explicit Walker(int tid) : tid_(tid) {
    if (auto maps = read_maps(tid)) maps_ = std::move(*maps);
  }

  std::vector<std::string> walk() {
    if (!read_position()) return {};
    static const unw_accessors_t kAccessors = {&find_proc_info, &put_unwind_info, &get_dyn_info_list_addr,
                                               &access_mem,     &access_reg,      &access_fpreg,
                                               &resume,         &get_proc_name};
    unw_addr_space_t space = unw_create_addr_space(const_cast<unw_accessors_t*>(&kAccessors), 0);
    std::vector<std::string> frames;
    unw_cursor_t cursor;
    if (space != nullptr && unw_init_remote(&cursor, space, this) == 0) {
      do {
        unw_word_t ip = 0;
        if (unw_get_reg(&cursor, UNW_REG_IP, &ip) != 0 || ip == 0) break;
        frames.push_back(describe(ip));
      } while (frames.size() < kMaxFrames && unw_step(&cursor) > 0);
    }
    if (space != nullptr) unw_destroy_addr_space(space);
    return frames;
  }

 private:
  static Walker& self(void* argument) { return *static_cast<Walker*>(argument); }

  /// Last two fields of /proc/TID/syscall: stack pointer and instruction pointer.
  bool read_position() {
    auto text = read_proc_file(tid_, "syscall");
    if (!text) return false;
    size_t last = text->rfind(" 0x");
    size_t before = last == std::string::npos || last == 0 ? last : text->rfind(" 0x", last - 1);
    if (before == std::string::npos) return false;
    sp_ = strtoull(text->c_str() + before + 1, nullptr, 16);
    ip_ = strtoull(text->c_str() + last + 1, nullptr, 16);
    return true;
  }

  const MapEntry* entry_at(uint64_t address) const {
    for (const MapEntry& entry : maps_)
      if (entry.contains(address)) return &entry;
    return nullptr;
  }

  bool find_module(uint64_t ip, Module& module) const {
    const MapEntry* entry = entry_at(ip);
    if (entry == nullptr) return false;
    module.base = entry->start;
    for (const MapEntry& other : maps_)
      if (entry->has_inode() && other.inode == entry->inode && other.offset == 0 && other.start <= ip)
        module.base = other.start;
    module.name = entry->path.substr(entry->path.rfind('/') + 1);
    if (module.name.starts_with("memfd:")) module.name.erase(0, 6);
    Elf64_Ehdr header{};
    if (!read_memory(tid_, module.base, &header, sizeof header) ||
        memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_phnum > 64)
      return false;
    module.segments.resize(header.e_phnum);
    if (!read_memory(tid_, module.base + header.e_phoff, module.segments.data(),
                     module.segments.size() * sizeof(Elf64_Phdr)))
      return false;
    for (const Elf64_Phdr& segment : module.segments)
      if (segment.p_type == PT_LOAD && segment.p_offset == 0) module.bias = module.base - segment.p_vaddr;
    return true;
  }

  std::string describe(uint64_t ip) const {
    char address[32];
    snprintf(address, sizeof address, " [0x%lx]", ip);
    Module module;
    if (!find_module(ip, module)) {
      const MapEntry* entry = entry_at(ip);
      return (entry == nullptr || entry->path.empty() ? "?" : entry->path) + address;
    }
    char offset[32];
    uint64_t into = ip - module.bias;
    std::string name = symbol_at(module, ip, into);
    snprintf(offset, sizeof offset, "+0x%lx", into);
    return module.name + "(" + name + offset + ")" + address;
  }

  /// The dynamic symbol that covers `ip`; `into` becomes the offset into it.
  std::string symbol_at(const Module& module, uint64_t ip, uint64_t& into) const {
    uint64_t symbols = 0, names = 0;
    for (const Elf64_Phdr& segment : module.segments) {
      if (segment.p_type != PT_DYNAMIC) continue;
      for (uint64_t at = module.bias + segment.p_vaddr;; at += sizeof(Elf64_Dyn)) {
        Elf64_Dyn entry{};
        if (!read_memory(tid_, at, &entry, sizeof entry) || entry.d_tag == DT_NULL) break;
        uint64_t value = entry.d_un.d_ptr < module.base ? entry.d_un.d_ptr + module.bias : entry.d_un.d_ptr;
        if (entry.d_tag == DT_SYMTAB) symbols = value;
        if (entry.d_tag == DT_STRTAB) names = value;
      }
    }
    // Linkers put the names right behind the symbols: that is how many there are.
    constexpr uint64_t kMostSymbols = 100000;
    if (symbols == 0 || names <= symbols || (names - symbols) / sizeof(Elf64_Sym) > kMostSymbols) return "";
    std::vector<Elf64_Sym> table((names - symbols) / sizeof(Elf64_Sym));
    if (!read_memory(tid_, symbols, table.data(), table.size() * sizeof(Elf64_Sym))) return "";
    const Elf64_Sym* best = nullptr;
    for (const Elf64_Sym& symbol : table) {
      uint64_t start = module.bias + symbol.st_value;
      if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_value == 0 || start > ip) continue;
      if (ip < start + symbol.st_size && (best == nullptr || symbol.st_value > best->st_value))
        best = &symbol;
    }
    if (best == nullptr) return "";
    char text[256] = "";
    size_t n = read_memory_some(tid_, names + best->st_name, text, sizeof text - 1).value_or(0);
    text[n] = '\0';
    into = ip - (module.bias + best->st_value);
    return text;
  }

  static int find_proc_info(unw_addr_space_t space, unw_word_t ip, unw_proc_info_t* info, int need,
                            void* argument) {
    Walker& walker = self(argument);
    Module module;
    if (!walker.find_module(ip, module)) return -UNW_ENOINFO;
    for (const Elf64_Phdr& segment : module.segments) {
      if (segment.p_type != PT_GNU_EH_FRAME) continue;
      uint64_t header_address = module.bias + segment.p_vaddr;
      struct __attribute__((packed)) {
        uint8_t version, frame_encoding, count_encoding, table_encoding;
        int32_t frame;
        uint32_t count;
      } header{};
      if (!read_memory(walker.tid_, header_address, &header, sizeof header) || header.version != 1 ||
          header.table_encoding != kTableEncoding)
        return -UNW_ENOINFO;
      unw_dyn_info_t table{};
      const MapEntry* entry = walker.entry_at(ip);
      table.start_ip = entry->start;
      table.end_ip = entry->end;
      table.format = UNW_INFO_FORMAT_REMOTE_TABLE;
      table.u.rti.segbase = header_address;
      table.u.rti.table_data = header_address + sizeof header;
      table.u.rti.table_len = header.count * 8 / sizeof(unw_word_t);
      return _Ux86_64_dwarf_search_unwind_table(space, ip, &table, info, need, argument);
    }
    return -UNW_ENOINFO;
  }
  static void put_unwind_info(unw_addr_space_t, unw_proc_info_t*, void*) {}
  static int get_dyn_info_list_addr(unw_addr_space_t, unw_word_t*, void*) { return -UNW_ENOINFO; }
  static int access_mem(unw_addr_space_t, unw_word_t address, unw_word_t* value, int write, void* argument) {
    if (write != 0) return -UNW_EINVAL;
    return read_memory(self(argument).tid_, address, value, sizeof *value) ? 0 : -UNW_EINVAL;
  }
  static int access_reg(unw_addr_space_t, unw_regnum_t number, unw_word_t* value, int write, void* argument) {
    if (write != 0) return -UNW_EREADONLYREG;
    if (number == UNW_X86_64_RSP)
      *value = self(argument).sp_;
    else if (number == UNW_X86_64_RIP)
      *value = self(argument).ip_;
    else
      *value = 0;
    return 0;
  }
  static int access_fpreg(unw_addr_space_t, unw_regnum_t, unw_fpreg_t*, int, void*) { return -UNW_EBADREG; }
  static int resume(unw_addr_space_t, unw_cursor_t*, void*) { return -UNW_EINVAL; }
  static int get_proc_name(unw_addr_space_t, unw_word_t, char*, size_t, unw_word_t*, void*) {
    return -UNW_EINVAL;
  }

  int tid_;
  uint64_t sp_ = 0, ip_ = 0;
  std::vector<MapEntry> maps_;
};

}  // namespace

std::vector<std::string> guest_stack(int outer_tid) { return Walker(outer_tid).walk(); }

}  // namespace mosix
