// As much JSON as headers of files need: objects, arrays, strings, integers of at least 0.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kangaroo {

// What is wrong with a file; thrown by what reads it, caught where it is opened.
struct Fault {
  std::string what;
};

// Text that an attacker may have written, made fit for one line of a message.
std::string printable(std::string_view text);

bool valid_utf8(std::string_view text);

// Reads from front to back. Nesting is the caller's, so that no input can exhaust the stack.
// Everything but the expected throws a Fault.
class Json {
 public:
  explicit Json(std::string_view text) : text_(text) {}

  // `member(key)` reads the value of each member.
  template <class Member>
  void object(const Member& member) {
    expect('{');
    if (next('}')) return;
    do {
      const std::string key = string();
      expect(':');
      member(key);
    } while (next(','));
    expect('}');
  }

  // `item()` reads each item.
  template <class Item>
  void array(const Item& item) {
    expect('[');
    if (next(']')) return;
    do {
      item();
    } while (next(','));
    expect(']');
  }

  // Without NUL, so that it may be a string of C.
  std::string string();
  int64_t integer();
  // Nothing but spaces is left.
  void end();

 private:
  void skip_spaces();
  bool next(char symbol);
  void expect(char symbol);
  char escape(std::string* out);
  uint32_t four_digits();
  [[noreturn]] void fail(const std::string& expected) const;

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace kangaroo
