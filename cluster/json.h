// JSON between mosixd and its tools, custodians and supervisors: reading fields without exceptions, and
// errors in the one form that tools print. A field of the wrong type counts as absent.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "libmosix/common/result.h"

namespace mosix {

using Json = nlohmann::json;

/// Null where the text is not a JSON object.
inline Json parse_object(std::string_view text) {
  Json value = Json::parse(text.begin(), text.end(), nullptr, false);
  return value.is_object() ? value : Json();
}

inline std::string text_field(const Json& object, const char* key, std::string fallback = "") {
  auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : fallback;
}
inline int64_t number_field(const Json& object, const char* key, int64_t fallback = 0) {
  auto at = object.find(key);
  if (at == object.end() || !at->is_number()) return fallback;
  if (!at->is_number_float()) return at->get<int64_t>();
  double value = at->get<double>();
  return value > -9e18 && value < 9e18 ? static_cast<int64_t>(value) : fallback;
}
inline bool flag_field(const Json& object, const char* key, bool fallback = false) {
  auto at = object.find(key);
  return at != object.end() && at->is_boolean() ? at->get<bool>() : fallback;
}

/// One line without its newline; bytes that are not UTF-8 become the replacement character.
inline std::string to_line(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

inline Json failure(int code, const std::string& sentence) {
  return Json{{"ok", false}, {"code", code}, {"error", sentence}};
}
inline Json failure(const Error& error) {
  return failure(error.code == 0 ? EINVAL : error.code, error.message());
}

}  // namespace mosix
