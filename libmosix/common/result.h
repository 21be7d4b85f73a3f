// Errors as values. Library code of ours returns Result<T> and is silent; main functions and event
// loops decide and log, once. An Error names the operation, its object and errno, so that a message
// can say `connect 10.0.0.2:7230: ECONNREFUSED` without anybody having formatted it on the way.
#pragma once

#include <cerrno>
#include <cstring>
#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace mosix {

/// What failed: `what` is "operation object" in words for a person, `code` is an errno (0 if none applies).
struct Error {
  int code = 0;
  std::string what;

  /// "connect node2: Connection refused", the form that every log line and message uses.
  std::string message() const { return code == 0 ? what : what + ": " + strerror(code); }
};

template <class T>
using Result = tl::expected<T, Error>;
using Status = tl::expected<void, Error>;

/// An error with errno as it stands now.
inline tl::unexpected<Error> fail_errno(std::string what) {
  return tl::unexpected<Error>(Error{errno, std::move(what)});
}
/// An error with a code of the caller's choice.
inline tl::unexpected<Error> fail(int code, std::string what) {
  return tl::unexpected<Error>(Error{code, std::move(what)});
}
/// The same error on its way up, with more context in front.
inline tl::unexpected<Error> fail(Error error) { return tl::unexpected<Error>(std::move(error)); }

}  // namespace mosix

#define MOSIX_CONCAT_INNER(a, b) a##b
#define MOSIX_CONCAT(a, b) MOSIX_CONCAT_INNER(a, b)
/// TRY(auto value, expression): takes the value or returns the error to the caller.
#define TRY(declaration, expression)                                              \
  auto MOSIX_CONCAT(try_result_, __LINE__) = (expression);                        \
  if (!MOSIX_CONCAT(try_result_, __LINE__))                                       \
    return ::mosix::fail(std::move(MOSIX_CONCAT(try_result_, __LINE__).error())); \
  declaration = std::move(*MOSIX_CONCAT(try_result_, __LINE__))
/// TRY_VOID(expression): for Status.
#define TRY_VOID(expression)                                              \
  do {                                                                    \
    auto try_status = (expression);                                       \
    if (!try_status) return ::mosix::fail(std::move(try_status.error())); \
  } while (0)
