#include "bundle.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "errors.h"
#include "output.h"
#include "regular_file.h"
#include "sha256.h"
#include "table.h"
#include "text.h"

namespace infer {
namespace {

constexpr char kName[] = "bundle.tsv", kLabels[] = "labels.txt";
constexpr char kRemedy[] = "copy the whole bundle again";
constexpr std::int64_t kMostSide = 100000, kMostClasses = 1000000, kMostBatch = 65536;

bool IsDigest(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == text.npos;
}

class Parser {
 public:
  Parser(const std::string& text, const std::string& folder)
      : text_(text), table_(text, JoinPath(folder, kName), kRemedy) {
    bundle_.folder = folder;
  }

  Bundle Parse() {
    head_["version"] = table_.Head("version");
    if (head_["version"] != "1") Wrong("version", "1");
    while (!is_over_) TakeLine();
    if (!table_.IsOver()) table_.Fail("goes on after its last line");
    SetHead();
    SetTransform();
    CheckNames();
    return bundle_;
  }

 private:
  void TakeLine() {
    static const std::set<std::string_view> kKeys = {
        "network",  "input",     "batch_size",    "image_size",       "num_classes",
        "crop_pct", "crop_mode", "interpolation", "exif_orientation", "background",
        "mean",     "std",       "tolerance",     "mindspore",        "numpy",
        "pillow",   "python"};
    const std::string_view line = table_.Line();
    const std::vector<std::string_view> words = Split(line, '\t');
    if (words[0] == "file" && words.size() == 4 && IsDigest(words[3])) {
      bundle_.files.push_back(
          {std::string(words[1]), table_.Number(words[2]), std::string(words[3])});
    } else if (words[0] == "golden" && words.size() == 2) {
      bundle_.golden.emplace_back(words[1]);
    } else if (words[0] == "end" && words.size() == 3) {
      End(line, words);
    } else if (words.size() != 2 || kKeys.count(words[0]) == 0) {
      table_.Fail("has a bad line '" + Shown(line) + "'");
    } else if (!head_.emplace(words[0], words[1]).second) {
      table_.Fail("has two lines of '" + std::string(words[0]) + "'");
    }
  }

  void End(std::string_view line, const std::vector<std::string_view>& words) {
    is_over_ = true;
    const auto before = static_cast<std::size_t>(line.data() - text_.data());
    if (Sha256Of(text_.substr(0, before)) != words[2]) table_.Fail("is not as it was written");
    if (table_.Number(words[1]) != static_cast<std::int64_t>(bundle_.files.size()))
      table_.Fail("lacks files");
  }

  [[noreturn]] void Wrong(const std::string& key, const std::string& expected) {
    table_.Fail("has " + key + " '" + Shown(head_[key]) + "', not " + expected);
  }

  std::int64_t Between(const std::string& key, std::int64_t least, std::int64_t most) {
    const std::optional<std::int64_t> value = ReadDecimal(head_[key], most);
    if (!value || *value < least)
      Wrong(key, "from " + std::to_string(least) + " to " + std::to_string(most));
    return *value;
  }

  // Whether it is the first of two words.
  bool IsFirst(const std::string& key, const std::string& first, const std::string& second) {
    if (head_[key] != first && head_[key] != second) Wrong(key, first + " or " + second);
    return head_[key] == first;
  }

  std::array<double, 3> Three(const std::string& key, bool is_positive) {
    const std::vector<std::string_view> words = Split(head_[key], ',');
    std::array<double, 3> values{};
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::optional<double> value = words.size() == 3 ? ReadReal(words[i]) : std::nullopt;
      if (!value || (is_positive && *value <= 0)) Wrong(key, "three numbers");
      values[i] = *value;
    }
    return values;
  }

  double Share(const std::string& key, bool can_be_zero) {
    const std::optional<double> value = ReadReal(head_[key]);
    if (!value || *value > 1 || *value < 0 || (*value == 0 && !can_be_zero))
      Wrong(key, "a share of 1");
    return *value;
  }

  void SetHead() {
    bundle_.network = head_["network"];
    bundle_.takes_pixels = IsFirst("input", "uint8_nhwc", "float32_nchw");
    bundle_.batch_size = Between("batch_size", 0, kMostBatch);
    bundle_.num_classes = Between("num_classes", 1, kMostClasses);
    bundle_.tolerance = Share("tolerance", true);
  }

  void SetTransform() {
    Transform& transform = bundle_.transform;
    transform.image_size = Between("image_size", 1, kMostSide);
    transform.crop_pct = Share("crop_pct", false);
    transform.squashes = IsFirst("crop_mode", "squash", "center");
    transform.is_bicubic = IsFirst("interpolation", "bicubic", "bilinear");
    transform.turns = IsFirst("exif_orientation", "true", "false");
    transform.mean = Three("mean", false);
    transform.deviation = Three("std", true);
    if (head_["background"] != "null") {
      Colour colour;
      const std::array<double, 3> given = Three("background", false);
      for (std::size_t i = 0; i < colour.size(); ++i) {
        if (given[i] < 0 || given[i] > 255 || given[i] != static_cast<int>(given[i]))
          Wrong("background", "three numbers from 0 to 255");
        colour[i] = static_cast<std::uint8_t>(given[i]);
      }
      transform.background = colour;
    }
    // Four bytes for each number of a batch.
    const auto side = static_cast<std::size_t>(transform.image_size);
    const auto batch = static_cast<std::size_t>(std::max<std::int64_t>(bundle_.batch_size, 1));
    if (side * side > kMostInputBytes / 12 / batch) Wrong("image_size", "images of a batch");
  }

  void CheckNames() {
    std::set<std::string> listed;
    for (const BundleFile& file : bundle_.files) {
      const std::string shown = "'" + Shown(file.name) + "'";
      if (!StaysBelow(file.name))
        table_.Fail("has the name " + shown + ", which is not below its folder");
      if (!listed.insert(file.name).second) table_.Fail("lists " + shown + " twice");
    }
    std::vector<std::string> needed = bundle_.golden;
    needed.insert(needed.end(), {bundle_.network, kLabels, "manifest.tsv"});
    for (const std::string& name : needed) {
      if (listed.count(name) == 0) table_.Fail("lists no '" + Shown(name) + "'");
    }
    if (bundle_.golden.empty()) table_.Fail("has no golden images");
  }

  const std::string& text_;
  Table table_;
  std::map<std::string, std::string_view, std::less<>> head_;
  bool is_over_ = false;
  Bundle bundle_;
};

RegularFile Open(const Bundle& bundle, const std::string& name, std::size_t most_bytes) {
  return RegularFile(PathBelow(bundle.folder, name, kRemedy), most_bytes, kRemedy);
}

[[noreturn]] void Refuse(const Bundle& bundle, const std::string& name, const std::string& reason) {
  throw UserError("'" + Shown(JoinPath(bundle.folder, name), 300) + "': " + reason + "; " +
                  kRemedy);
}

void CheckFile(const Bundle& bundle, const BundleFile& listed) {
  const RegularFile file = Open(bundle, listed.name, std::size_t{1} << 31);
  if (file.Size() != static_cast<std::size_t>(listed.bytes)) {
    Refuse(bundle, listed.name,
           std::to_string(file.Size()) + " bytes, not " + std::to_string(listed.bytes));
  }
  Sha256 digest;
  file.ReadInParts([&](const char* data, std::size_t size) { digest.Add(data, size); });
  if (digest.Digest() != listed.sha256)
    Refuse(bundle, listed.name, "not the file that was written, its SHA-256 is another");
}

std::string TextOf(const Bundle& bundle, const std::string& name) {
  const std::vector<char> bytes = Open(bundle, name, kMostBundleBytes).Read();
  return std::string(bytes.begin(), bytes.end());
}

}  // namespace

Bundle ReadBundle(const std::string& folder) {
  const std::string remedy = "export.py --bundle makes such folders";
  const RegularFile file(PathBelow(folder, kName, remedy), kMostBundleBytes, remedy);
  const std::vector<char> bytes = file.Read();
  const Bundle bundle = ParseBundle(std::string(bytes.begin(), bytes.end()), folder);
  for (const BundleFile& listed : bundle.files) CheckFile(bundle, listed);
  return bundle;
}

Bundle ParseBundle(const std::string& text, const std::string& folder) {
  return Parser(text, folder).Parse();
}

std::vector<Golden> ReadGolden(const Bundle& bundle) {
  const Manifest inputs = ReadManifest(bundle.folder);
  const std::int64_t side = bundle.transform.image_size;
  if (inputs.dtype != "uint8" || inputs.shape != std::vector<std::int64_t>{1, side, side, 3} ||
      inputs.files.size() != bundle.golden.size()) {
    Refuse(bundle, "manifest.tsv", "not of the bundle's images");
  }
  std::vector<Golden> found;
  for (std::size_t i = 0; i < bundle.golden.size(); ++i) {
    Golden golden{bundle.golden[i], ReadInput(inputs, inputs.files[i]), {}};
    golden.logits.resize(static_cast<std::size_t>(bundle.num_classes));
    const std::size_t size = golden.logits.size() * sizeof(float);
    const std::string name = "result/" + ResultName(inputs.files[i].name);
    const std::vector<char> bytes = Open(bundle, name, size).Read();
    if (bytes.size() != size) Refuse(bundle, name, "not a logit for each class");
    std::memcpy(golden.logits.data(), bytes.data(), size);
    std::size_t expected = 0;
    CheckLogits(golden.logits.data(), golden.logits.size(), 1, &expected);
    found.push_back(std::move(golden));
  }
  return found;
}

std::vector<std::string> ReadLabels(const Bundle& bundle) {
  const std::string text = TextOf(bundle, kLabels);
  Table table(text, JoinPath(bundle.folder, kLabels), kRemedy);
  std::vector<std::string> names;
  while (!table.IsOver()) names.emplace_back(table.Line());
  if (names.size() != static_cast<std::size_t>(bundle.num_classes)) {
    table.Fail("has " + std::to_string(names.size()) + " names for " +
               std::to_string(bundle.num_classes) + " classes");
  }
  return names;
}

InputForm FormOf(const Bundle& bundle, std::int64_t batch_size) {
  const std::int64_t side = bundle.transform.image_size;
  if (bundle.takes_pixels) return {"uint8", {batch_size, side, side, 3}};
  return {"float32", {batch_size, 3, side, side}};
}

}  // namespace infer
