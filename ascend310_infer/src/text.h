// Text of other people: numbers that are nothing else, and messages that stay on their line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace infer {

// `text` as a number from 0 to `most`: digits only, without sign, blank or leading zero.
std::optional<std::int64_t> ReadDecimal(std::string_view text, std::int64_t most);

// `text` as a decimal number such as -0.485 or 1e-05, and nothing else that C takes for one.
std::optional<double> ReadReal(std::string_view text);

// Exactly eight lower-case hexadecimal digits, as CRC-32 is written.
std::optional<std::uint32_t> ReadHex32(std::string_view text);

// Whether a terminal or a file name could take `byte` for something other than a character.
bool IsControl(char byte);

// For a message: control characters as \x1B, and no more than `most_bytes` of it.
std::string Shown(std::string_view text, std::size_t most_bytes = 80);

}  // namespace infer
