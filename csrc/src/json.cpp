#include "json.h"

#include <cstring>

namespace kangaroo {
namespace {

constexpr std::size_t kLongestPrinted = 120;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

void append_utf8(std::string* out, uint32_t point) {
  const auto put = [out](uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (point < 0x80) {
    put(point);
  } else if (point < 0x800) {
    put(0xc0 | point >> 6);
    put(0x80 | (point & 0x3f));
  } else if (point < 0x10000) {
    put(0xe0 | point >> 12);
    put(0x80 | (point >> 6 & 0x3f));
    put(0x80 | (point & 0x3f));
  } else {
    put(0xf0 | point >> 18);
    put(0x80 | (point >> 12 & 0x3f));
    put(0x80 | (point >> 6 & 0x3f));
    put(0x80 | (point & 0x3f));
  }
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out(text.substr(0, kLongestPrinted));
  for (char& c : out) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte > 0x7e) c = '?';
  }
  return text.size() > kLongestPrinted ? out + "..." : out;
}

bool valid_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const auto lead = static_cast<unsigned char>(text[at++]);
    if (lead < 0x80) continue;
    const int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || text.size() - at < static_cast<std::size_t>(more)) {
      return false;
    }
    uint32_t point = lead & (0x3fu >> more);
    for (int i = 0; i < more; ++i) {
      const auto byte = static_cast<unsigned char>(text[at++]);
      if ((byte & 0xc0) != 0x80) return false;
      point = point << 6 | (byte & 0x3fu);
    }
    const uint32_t least = more == 3 ? 0x10000 : more == 2 ? 0x800 : 0x80;
    if (point < least || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) return false;
  }
  return true;
}

void Json::fail(const std::string& expected) const {
  const std::string got =
      at_ < text_.size() ? "'" + printable(text_.substr(at_, 1)) + "'" : std::string("its end");
  throw Fault{"header: byte " + std::to_string(at_) + ": expected " + expected + ", got " + got};
}

void Json::skip_spaces() {
  while (at_ < text_.size() && text_[at_] != '\0' && std::strchr(" \t\r\n", text_[at_])) ++at_;
}

bool Json::next(char symbol) {
  skip_spaces();
  if (at_ >= text_.size() || text_[at_] != symbol) return false;
  ++at_;
  return true;
}

void Json::expect(char symbol) {
  if (!next(symbol)) fail(std::string("'") + symbol + "'");
}

void Json::end() {
  skip_spaces();
  if (at_ < text_.size()) fail("nothing but spaces");
}

int64_t Json::integer() {
  skip_spaces();
  const std::size_t first = at_;
  int64_t value = 0;
  while (at_ < text_.size() && is_digit(text_[at_])) {
    if (__builtin_mul_overflow(value, int64_t{10}, &value) ||
        __builtin_add_overflow(value, int64_t{text_[at_] - '0'}, &value)) {
      fail("an integer below 2^63");
    }
    ++at_;
  }
  if (at_ == first) fail("an integer of at least 0");
  if (text_[first] == '0' && at_ > first + 1) fail("an integer without leading zeros");
  return value;
}

std::string Json::string() {
  expect('"');
  std::string out;
  for (;;) {
    if (at_ >= text_.size()) fail("the end of a string");
    const char c = text_[at_];
    if (static_cast<unsigned char>(c) < 0x20) fail("no control character in a string");
    ++at_;
    if (c == '"') return out;
    out.push_back(c == '\\' ? escape(&out) : c);
  }
}

// The last byte of what an escape stands for; those before it are appended to `out`.
char Json::escape(std::string* out) {
  static constexpr char kShort[] = "\"\\/bfnrt";
  static constexpr char kMeaning[] = "\"\\/\b\f\n\r\t";
  const char c = at_ < text_.size() ? text_[at_] : '\0';
  if (const char* found = c ? std::strchr(kShort, c) : nullptr) {
    ++at_;
    return kMeaning[found - kShort];
  }
  if (c != 'u') fail("an escape of JSON");
  ++at_;
  uint32_t point = four_digits();
  if (point >= 0xd800 && point < 0xdc00 && text_.substr(at_, 2) == "\\u") {
    at_ += 2;
    const uint32_t low = four_digits();
    if (low < 0xdc00 || low > 0xdfff) fail("the second half of a pair");
    point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
  }
  if (point == 0) fail("a string without NUL");
  if (point >= 0xd800 && point < 0xe000) fail("both halves of a pair");
  append_utf8(out, point);
  const char last = out->back();
  out->pop_back();
  return last;
}

uint32_t Json::four_digits() {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    static constexpr char kDigits[] = "0123456789abcdef";
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    const char lower = c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
    const char* found = lower ? std::strchr(kDigits, lower) : nullptr;
    if (!found) fail("four hexadecimal digits");
    value = value << 4 | static_cast<uint32_t>(found - kDigits);
  }
  return value;
}

}  // namespace kangaroo
