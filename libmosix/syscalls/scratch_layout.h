// How plan_call lays out a call's scratch: a builder, private to call_plan*.cc.
//
// A *room* is a piece of scratch, 16-byte aligned. In rooms are filled from the guest and lie first, because
// a frame carries only that prefix; out rooms follow and get their offsets in finish(), when the prefix is
// known. So pointers and out regions name rooms until then.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "libmosix/syscalls/call_plan.h"

namespace mosix {

/// What data may take of a frame; the rest is for the structures around it.
inline constexpr uint64_t kMaxDataBytes = kMaxScratchBytes - (512u << 10);

/// What O_DIRECT wants of addresses and sizes.
inline constexpr uint32_t kSectorBytes = 512;

using Room = uint32_t;

class ScratchLayout {
 public:
  /// An in room, zeroed. Its bytes are at in_bytes(room) until the next room is added.
  Room add_in(uint64_t bytes, uint32_t alignment = 16) {
    pad_to(plan_.scratch, alignment);
    uint32_t offset = static_cast<uint32_t>(plan_.scratch.size());
    plan_.scratch.resize(offset + std::max<uint64_t>(bytes, 1));
    return add_room(Place{offset, 0, alignment});
  }
  uint8_t* bytes_of(Room room) { return plan_.scratch.data() + rooms_[room].offset; }
  uint32_t offset_of(Room in_room) const { return rooms_[in_room].offset; }

  /// An out room: zero at home, not sent. One byte at least, so that every pointer points into scratch.
  Room add_out(uint64_t bytes, uint32_t alignment = 16) {
    uint32_t size = static_cast<uint32_t>(std::max<uint64_t>(bytes, 1));
    out_bytes_ += size + alignment;
    return add_room(Place{0, size, alignment});
  }

  /// What is laid out so far, alignment included; never less than what finish() will need.
  uint64_t used_bytes() const { return plan_.scratch.size() + out_bytes_; }
  uint64_t data_left() const { return used_bytes() >= kMaxDataBytes ? 0 : kMaxDataBytes - used_bytes(); }

  void set_argument(size_t index, uint64_t value) { plan_.body.args[index] = value; }
  uint64_t argument(size_t index) const { return plan_.body.args[index]; }
  void point_argument(size_t index, Room room) {
    plan_.body.arg_relocs |= 1u << index;
    argument_pointers_.push_back({static_cast<uint32_t>(index), room});
  }
  /// The 64-bit word at `at` (in scratch, in part) shall point to the room.
  void point_word(uint32_t at, Room room) { word_pointers_.push_back({at, room}); }
  const uint8_t* scratch() const { return plan_.scratch.data(); }
  void set_word(uint32_t at, uint64_t value) { memcpy(plan_.scratch.data() + at, &value, sizeof(value)); }

  struct Out {
    Room room = 0;
    uint32_t delta = 0;  ///< region's offset in the room
    uint32_t bytes = 0;
    OutRule rule = OutRule::kFixed;
    uint32_t param = 0;
    OutDestination destination{};  ///< max_bytes is filled in
  };
  void add_region(Out out) {
    if (out.bytes == 0) return;
    out.destination.max_bytes = out.bytes;
    plan_.outs.push_back(OutRegion{out.delta, out.bytes, static_cast<uint16_t>(out.rule), 0, out.param});
    plan_.destinations.push_back(out.destination);
    region_rooms_.push_back(out.room);
  }
  size_t region_count() const { return plan_.outs.size(); }

  std::vector<OutSegment>& segments() { return plan_.segments; }

  /// Settles all offsets. kCannotCarry if the call is larger than a frame.
  Result<CallPlan> finish(uint32_t number);

 private:
  struct Place {
    uint32_t offset;
    uint32_t out_bytes;  ///< 0: an in room
    uint32_t alignment;
  };
  struct Pointer {
    uint32_t from;
    Room room;
  };
  Room add_room(Place place) {
    rooms_.push_back(place);
    return static_cast<Room>(rooms_.size() - 1);
  }
  void put_outs_in_order();
  static void pad_to(std::vector<uint8_t>& bytes, uint32_t alignment) {
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
  }

  CallPlan plan_;
  std::vector<Place> rooms_;
  std::vector<Pointer> argument_pointers_;
  std::vector<Pointer> word_pointers_;
  std::vector<Room> region_rooms_;
  uint64_t out_bytes_ = 0;
};

/// Offsets in scratch keep what alignment a buffer of whole sectors has, because O_DIRECT asks for it.
inline uint32_t alignment_for(uint64_t address, uint64_t bytes) {
  if (bytes == 0 || address % kSectorBytes != 0 || bytes % kSectorBytes != 0) return 16;
  return static_cast<uint32_t>(std::min<uint64_t>(address & (~address + 1), 4096));
}

/// An address that no guest can have mapped: the first page, or beyond user space.
inline bool is_hopeless(uint64_t address) { return address < 4096 || address >= uint64_t{1} << 56; }

/// What goes home for a pointer that cannot be followed: itself, if it is as bad there.
inline uint64_t bad_pointer_for(uint64_t address) { return is_hopeless(address) ? address : kBadPointer; }

}  // namespace mosix
