// The images below a folder.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace infer {

struct Found {
  std::vector<std::string> names;      // below the folder, sorted
  std::map<std::string, int> skipped;  // ending or kind -> how many files are left out
};

// Files that end as JPEG and PNG files do, to any depth; hidden ones are left out. Links are
// followed, but not into a folder that they stand in. Throws UserError when `folder` cannot be
// listed.
Found FindImages(const std::string& folder);

// `3 files are not read: 2 .webp, 1 .txt`; empty when there are none.
std::string DescribeSkipped(const Found& found);

}  // namespace infer
