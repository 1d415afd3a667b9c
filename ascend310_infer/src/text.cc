#include "text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>

namespace infer {

std::optional<std::int64_t> ReadDecimal(std::string_view text, std::int64_t most) {
  const auto is_digit = [](char c) { return '0' <= c && c <= '9'; };
  if (text.empty() || !std::all_of(text.begin(), text.end(), is_digit)) return std::nullopt;
  if (text.size() > 1 && text[0] == '0') return std::nullopt;
  std::int64_t value = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  if (read.ec != std::errc() || value > most) return std::nullopt;
  return value;
}

std::optional<double> ReadReal(std::string_view text) {
  if (text.empty() || text.size() > 40) return std::nullopt;
  std::string_view rest = text;
  const auto skip_digits = [&rest] {
    const std::size_t count = std::min(rest.find_first_not_of("0123456789"), rest.size());
    rest.remove_prefix(count);
    return count > 0;
  };
  const auto skip = [&rest](const char* signs) {
    const bool is_there = !rest.empty() && std::strchr(signs, rest[0]) != nullptr && rest[0] != 0;
    if (is_there) rest.remove_prefix(1);
    return is_there;
  };
  skip("-");
  if (!skip_digits() || (skip(".") && !skip_digits())) return std::nullopt;
  if (skip("e")) {
    skip("+-");
    if (!skip_digits()) return std::nullopt;
  }
  const double value = std::strtod(std::string(text).c_str(), nullptr);
  if (!rest.empty() || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::optional<std::uint32_t> ReadHex32(std::string_view text) {
  const auto is_digit = [](char c) { return ('0' <= c && c <= '9') || ('a' <= c && c <= 'f'); };
  if (text.size() != 8 || !std::all_of(text.begin(), text.end(), is_digit)) return std::nullopt;
  std::uint32_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return value;
}

bool IsControl(char byte) {
  const auto code = static_cast<unsigned char>(byte);
  return code < 0x20 || code == 0x7F;
}

std::string Shown(std::string_view text, std::size_t most_bytes) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string shown;
  for (const char byte : text.substr(0, most_bytes)) {
    const auto code = static_cast<unsigned char>(byte);
    if (IsControl(byte)) {
      shown += {'\\', 'x', kDigits[code >> 4], kDigits[code & 15]};
    } else {
      shown += byte;
    }
  }
  return text.size() > most_bytes ? shown + "..." : shown;
}

}  // namespace infer
