#include "find_images.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "errors.h"
#include "regular_file.h"
#include "text.h"

namespace infer {
namespace {

using Identity = std::pair<dev_t, ino_t>;

std::string Ending(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  std::string ending = dot == name.npos ? "" : name.substr(dot);
  for (char& c : ending) c = 'A' <= c && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return ending.size() <= 9 ? ending : "";
}

class Search {
 public:
  explicit Search(const std::string& root) : root_(root) {}

  Found Run() {
    struct stat state;
    if (stat(root_.c_str(), &state) != 0 || !List("", {{state.st_dev, state.st_ino}})) {
      throw UserError("--images '" + Shown(root_, 300) + "': cannot be listed (" +
                      std::strerror(errno) + "); give a folder of images");
    }
    std::sort(found_.names.begin(), found_.names.end());
    return std::move(found_);
  }

 private:
  // Whether it could be; `above` are the folders that it is in, and itself.
  bool List(const std::string& name, const std::vector<Identity>& above) {
    DIR* folder = opendir(name.empty() ? root_.c_str() : JoinPath(root_, name).c_str());
    if (folder == nullptr) return false;
    std::vector<std::string> inside;
    while (const dirent* entry = readdir(folder)) {
      if (entry->d_name[0] != '.') inside.emplace_back(entry->d_name);
    }
    closedir(folder);
    for (const std::string& inner : inside)
      Take(name.empty() ? inner : JoinPath(name, inner), above);
    return true;
  }

  void Take(const std::string& name, const std::vector<Identity>& above) {
    static const std::set<std::string> kEndings = {".jpg",  ".jpeg", ".jpe",
                                                   ".jfif", ".png",  ".apng"};
    struct stat state;
    if (stat(JoinPath(root_, name).c_str(), &state) != 0) {
      ++found_.skipped["dead link"];
    } else if (S_ISDIR(state.st_mode)) {
      std::vector<Identity> deeper = above;
      deeper.emplace_back(state.st_dev, state.st_ino);
      const bool is_round = std::count(above.begin(), above.end(), deeper.back()) > 0;
      if (is_round || !List(name, deeper))
        ++found_.skipped[is_round ? "link to a folder it is in" : "unreadable folder"];
    } else if (!S_ISREG(state.st_mode)) {
      ++found_.skipped["pipe, socket or device"];
    } else if (kEndings.count(Ending(name)) > 0) {
      found_.names.push_back(name);
    } else {
      const std::string ending = Ending(name.substr(name.rfind('/') + 1));
      ++found_.skipped[ending.empty() ? "file without an ending" : ending];
    }
  }

  std::string root_;
  Found found_;
};

}  // namespace

Found FindImages(const std::string& folder) { return Search(folder).Run(); }

std::string DescribeSkipped(const Found& found) {
  int total = 0;
  std::string kinds;
  for (const auto& [kind, count] : found.skipped) {
    total += count;
    kinds += (kinds.empty() ? "" : ", ") + std::to_string(count) + " " + Shown(kind);
  }
  return total == 0 ? "" : std::to_string(total) + " left out, not JPEG or PNG files: " + kinds;
}

}  // namespace infer
