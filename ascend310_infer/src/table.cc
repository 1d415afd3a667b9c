#include "table.h"

#include <algorithm>

#include "errors.h"
#include "text.h"

namespace infer {

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

bool StaysBelow(std::string_view name) {
  const std::vector<std::string_view> parts = Split(name, '/');
  return std::none_of(parts.begin(), parts.end(), [](std::string_view part) {
    return part.empty() || part == "." || part == "..";
  });
}

void Table::Fail(const std::string& reason) const {
  throw UserError("'" + Shown(path_, 300) + "' " + reason + "; " + remedy_);
}

std::string_view Table::Line() {
  const std::size_t end = rest_.find('\n');
  if (end == std::string_view::npos) Fail("is cut off");
  const std::string_view line = rest_.substr(0, end);
  rest_.remove_prefix(end + 1);
  const auto is_wrong = [](char c) { return c != '\t' && IsControl(c); };
  if (std::any_of(line.begin(), line.end(), is_wrong)) Fail("has a bad line '" + Shown(line) + "'");
  return line;
}

std::string_view Table::Head(const std::string& key) {
  const std::vector<std::string_view> words = Split(Line(), '\t');
  if (words[0] != key || words.size() != 2) Fail("does not begin with its " + key);
  return words[1];
}

std::int64_t Table::Number(std::string_view text) const {
  const auto value = ReadDecimal(text, std::int64_t{1} << 40);
  if (!value) Fail("has a bad number '" + Shown(text) + "'");
  return *value;
}

}  // namespace infer
