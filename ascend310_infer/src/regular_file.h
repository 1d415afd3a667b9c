// Files to read: regular ones only, of bounded size. A pipe or a device would never end.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace infer {

// One open file.
class RegularFile {
 public:
  // Opens `path` at once, whatever is there. Throws UserError, with `remedy` as its last words, for
  // what is no regular file or has more than `most_bytes`.
  RegularFile(const std::string& path, std::size_t most_bytes, const std::string& remedy);
  ~RegularFile();
  RegularFile(const RegularFile&) = delete;
  RegularFile& operator=(const RegularFile&) = delete;

  std::size_t Size() const { return size_; }

  // All of it, when it still has that size. Throws UserError.
  std::vector<char> Read() const;

  // The same without holding it: `take` is called for each part. Throws UserError.
  void ReadInParts(const std::function<void(const char*, std::size_t)>& take) const;

 private:
  [[noreturn]] void Fail(const std::string& reason) const;

  std::string path_, remedy_;
  int descriptor_ = -1;
  std::size_t size_ = 0;
};

// `name` below `folder` with all links followed. Throws UserError when that is outside the folder.
std::string PathBelow(const std::string& folder, const std::string& name,
                      const std::string& remedy);

std::string JoinPath(const std::string& folder, const std::string& name);

}  // namespace infer
