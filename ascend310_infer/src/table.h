// Texts of lines whose words are separated by tabs, as this project writes them, and no others.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace infer {

std::vector<std::string_view> Split(std::string_view text, char separator);

// Whether `name` is a relative path that stays below its folder, links aside.
bool StaysBelow(std::string_view name);

// Reads a text from its start; every failure is one line that names the file.
class Table {
 public:
  // `text` outlives it. `path` and `remedy` are for messages.
  Table(std::string_view text, const std::string& path, const std::string& remedy)
      : rest_(text), path_(path), remedy_(remedy) {}

  [[noreturn]] void Fail(const std::string& reason) const;

  // The next line, whose end must be there. Throws UserError for control characters in it.
  std::string_view Line();

  // The second word of the next line, which must be `key` and one word more.
  std::string_view Head(const std::string& key);

  // A whole number up to 2^40.
  std::int64_t Number(std::string_view text) const;

  bool IsOver() const { return rest_.empty(); }

 private:
  std::string_view rest_;
  std::string path_, remedy_;
};

}  // namespace infer
