#include "predictions.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <sstream>
#include <string_view>

#include "text.h"

namespace infer {
namespace {

struct Letter {
  std::uint32_t code;
  std::string_view bytes;
};

// Of UTF-8; a byte that is none stands alone, as 0xDC00 more.
std::vector<Letter> LettersOf(std::string_view text) {
  std::vector<Letter> letters;
  while (!text.empty()) {
    const auto first = static_cast<unsigned char>(text[0]);
    const std::size_t size = first < 0x80   ? 1
                             : first < 0xC2 ? 0
                             : first < 0xE0 ? 2
                             : first < 0xF0 ? 3
                             : first < 0xF5 ? 4
                                            : 0;
    std::uint32_t code = size < 2 ? first : first & (0x7Fu >> size);
    bool is_whole = size > 0 && size <= text.size();
    for (std::size_t i = 1; is_whole && i < size; ++i) {
      const auto next = static_cast<unsigned char>(text[i]);
      is_whole = (next & 0xC0) == 0x80;
      code = code << 6 | (next & 0x3Fu);
    }
    const bool is_odd = (size == 3 && (code < 0x800 || (code >= 0xD800 && code < 0xE000))) ||
                        (size == 4 && (code < 0x10000 || code > 0x10FFFF));
    const std::size_t taken = is_whole && !is_odd ? size : 1;
    letters.push_back({is_whole && !is_odd ? code : 0xDC00u + first, text.substr(0, taken)});
    text.remove_prefix(taken);
  }
  return letters;
}

bool IsObeyed(std::uint32_t code) {
  return code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0x61C || code == 0x200E ||
         code == 0x200F || (code >= 0x2028 && code <= 0x202E) ||
         (code >= 0x2066 && code <= 0x2069) || code == 0xFEFF || (code >= 0xDC00 && code < 0xDD00);
}

// What begins a formula, and its full-width forms.
bool IsSign(std::uint32_t code) {
  return code == '=' || code == '+' || code == '-' || code == '@' || code == 0xFF1D ||
         code == 0xFF0B || code == 0xFF0D || code == 0xFF20;
}

std::string Escape(std::uint32_t code) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) text += kDigits[code >> shift & 15];
  return text;
}

// A semicolon ends a cell where the comma is the decimal point.
bool BeginsFormula(const std::vector<Letter>& letters, std::size_t at) {
  while (at < letters.size() &&
         (letters[at].code == ' ' || letters[at].code == '"' || letters[at].code == '\''))
    ++at;
  return at < letters.size() && IsSign(letters[at].code);
}

std::string Quoted(const std::string& cell) {
  if (cell.find_first_of(",\"\r\n") == cell.npos) return cell;
  std::string text = "\"";
  for (const char c : cell) text += c == '"' ? std::string("\"\"") : std::string(1, c);
  return text + "\"";
}

}  // namespace

Prediction BestOf(const std::string& image, const float* logits, std::size_t num_classes,
                  std::size_t top_k) {
  Prediction best{image, std::vector<std::size_t>(num_classes), {}};
  std::iota(best.labels.begin(), best.labels.end(), std::size_t{0});
  std::stable_sort(best.labels.begin(), best.labels.end(),
                   [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  const double largest = logits[best.labels[0]];
  double total = 0;
  for (std::size_t i = 0; i < num_classes; ++i) total += std::exp(logits[i] - largest);
  best.labels.resize(std::min(top_k, num_classes));
  for (const std::size_t label : best.labels)
    best.probabilities.push_back(std::exp(logits[label] - largest) / total);
  return best;
}

std::string ToCell(const std::string& name) {
  if (ReadReal(name)) return name;
  const std::vector<Letter> letters = LettersOf(name);
  std::string text;
  for (std::size_t i = 0; i < letters.size(); ++i) {
    const auto& [code, bytes] = letters[i];
    if (code == '\\') {
      text += "\\\\";
    } else if (IsObeyed(code) || (code == ';' && BeginsFormula(letters, i + 1))) {
      text += Escape(code);
    } else {
      text += bytes;
    }
  }
  const bool needs_mark = !letters.empty() && (letters[0].code == '\'' || IsSign(letters[0].code));
  return needs_mark ? "'" + text : text;
}

std::string ToCsv(const std::vector<Prediction>& predictions,
                  const std::vector<std::string>& names) {
  std::ostringstream text;
  text.precision(17);
  text << "image,rank,label,name,probability\n";
  for (const Prediction& found : predictions) {
    const std::string image = Quoted(ToCell(found.image));
    for (std::size_t i = 0; i < found.labels.size(); ++i) {
      const std::size_t label = found.labels[i];
      text << image << ',' << i + 1 << ',' << label << ',' << Quoted(ToCell(names[label])) << ','
           << found.probabilities[i] << '\n';
    }
  }
  return text.str();
}

}  // namespace infer
