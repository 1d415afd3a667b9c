#include "regular_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "errors.h"
#include "text.h"

namespace infer {
namespace {

namespace fs = std::filesystem;

std::string Kind(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder, no file";
  if (S_ISFIFO(mode)) return "a named pipe, no regular file";
  if (S_ISSOCK(mode)) return "a socket, no regular file";
  return "a device, no regular file";
}

// -1 with errno, but not for a signal.
ssize_t ReadSome(int descriptor, char* data, std::size_t size) {
  while (true) {
    const ssize_t count = read(descriptor, data, size);
    if (count >= 0 || errno != EINTR) return count;
  }
}

}  // namespace

RegularFile::RegularFile(const std::string& path, std::size_t most_bytes, const std::string& remedy)
    : path_(path), remedy_(remedy) {
  // A pipe without a writer would not open before there is one.
  descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  struct stat state;
  if (descriptor_ < 0 || fstat(descriptor_, &state) != 0) {
    const std::string reason = std::strerror(errno);
    if (descriptor_ >= 0) close(descriptor_);
    Fail("cannot be read (" + reason + ")");
  }
  size_ = static_cast<std::size_t>(state.st_size);
  if (!S_ISREG(state.st_mode) || size_ > most_bytes) {
    close(descriptor_);
    if (!S_ISREG(state.st_mode)) Fail(Kind(state.st_mode));
    Fail(std::to_string(size_) + " bytes, more than the " + std::to_string(most_bytes) +
         " allowed");
  }
}

RegularFile::~RegularFile() { close(descriptor_); }

std::vector<char> RegularFile::Read() const {
  // One byte more, to notice a file that grows.
  std::vector<char> bytes(size_ + 1);
  std::size_t count = 0;
  ssize_t more = 1;
  while (more > 0 && count < bytes.size()) {
    more = ReadSome(descriptor_, bytes.data() + count, bytes.size() - count);
    if (more < 0) Fail(std::string("cannot be read (") + std::strerror(errno) + ")");
    count += static_cast<std::size_t>(more);
  }
  if (count != size_) Fail("changes while it is read");
  bytes.pop_back();
  return bytes;
}

void RegularFile::ReadInParts(const std::function<void(const char*, std::size_t)>& take) const {
  std::vector<char> part(std::size_t{1} << 20);
  std::size_t total = 0;
  while (true) {
    const ssize_t count = ReadSome(descriptor_, part.data(), part.size());
    if (count < 0) Fail(std::string("cannot be read (") + std::strerror(errno) + ")");
    total += static_cast<std::size_t>(count);
    if (total > size_ || (count == 0 && total < size_)) Fail("changes while it is read");
    if (count == 0) return;
    take(part.data(), static_cast<std::size_t>(count));
  }
}

void RegularFile::Fail(const std::string& reason) const {
  throw UserError("'" + Shown(path_, 300) + "': " + reason + "; " + remedy_);
}

std::string PathBelow(const std::string& folder, const std::string& name,
                      const std::string& remedy) {
  std::error_code error;
  const fs::path base = fs::canonical(folder, error);
  const fs::path path = error ? fs::path() : fs::canonical(base / name, error);
  const std::string shown = "'" + Shown(JoinPath(folder, name), 300) + "': ";
  if (error) throw UserError(shown + "cannot be read (" + error.message() + "); " + remedy);
  const fs::path relative = path.lexically_relative(base);
  if (relative.empty() || *relative.begin() == "..") {
    throw UserError(shown + "a link that leaves the folder; " + remedy);
  }
  return path.string();
}

std::string JoinPath(const std::string& folder, const std::string& name) {
  return folder.empty() || folder.back() == '/' ? folder + name : folder + "/" + name;
}

}  // namespace infer
