#include <png.h>

#include <csetjmp>
#include <cstring>
#include <string>

#include "errors.h"
#include "image_file.h"
#include "text.h"

namespace infer {
namespace {

// Its members outlive the jumps, so that nothing is left behind by one.
class Reader {
 public:
  explicit Reader(const std::vector<char>& bytes) : bytes_(bytes) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, OnError, OnWarning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
  }
  ~Reader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  Image Read() {
    if (info_ == nullptr || !ReadHeader()) Fail();
    CheckSize(image_.width, image_.height);
    row_bytes_ = static_cast<std::size_t>(4 * image_.width);
    data_.resize(row_bytes_ * static_cast<std::size_t>(image_.height));
    for (std::int64_t y = 0; y < image_.height; ++y)
      rows_.push_back(data_.data() + row_bytes_ * static_cast<std::size_t>(y));
    if (!ReadRows()) Fail();
    ReadEnd();  // what is wrong behind the pixels is not of them
    image_.orientation = Orientation();
    Split();
    return std::move(image_);
  }

 private:
  [[noreturn]] void Fail() const {
    throw UserError("not a readable PNG (" + Shown(message_, 200) + ")");
  }

  static void OnError(png_structp png, png_const_charp message) {
    auto* reader = static_cast<Reader*>(png_get_error_ptr(png));
    std::strncpy(reader->message_, message, sizeof(reader->message_) - 1);
    longjmp(reader->give_up_, 1);
  }

  static void OnWarning(png_structp, png_const_charp) {}

  // libpng takes memory for a chunk by the length that it says; pixels (IDAT) it reads in pieces.
  bool HasCutChunk() const {
    constexpr std::size_t kSignature = 8, kHead = 8, kCrc = 4;
    std::size_t at = kSignature;
    while (at + kHead <= bytes_.size()) {
      const auto* chunk = reinterpret_cast<png_const_bytep>(bytes_.data() + at);
      const auto is_a = [chunk](const char* name) { return std::memcmp(chunk + 4, name, 4) == 0; };
      const std::size_t length = png_get_uint_32(chunk);
      if (is_a("IEND")) return false;
      if (length + kCrc > bytes_.size() - at - kHead) return !is_a("IDAT");
      at += kHead + length + kCrc;
    }
    return false;
  }

  static void Take(png_structp png, png_bytep data, png_size_t size) {
    auto* reader = static_cast<Reader*>(png_get_io_ptr(png));
    if (size > reader->bytes_.size() - reader->at_) png_error(png, "the file is cut off");
    std::memcpy(data, reader->bytes_.data() + reader->at_, size);
    reader->at_ += size;
  }

  bool ReadHeader() {
    if (setjmp(give_up_) != 0) return false;
    if (HasCutChunk()) png_error(png_, "a chunk ends beyond the file");
    png_set_read_fn(png_, this, Take);
    png_set_crc_action(png_, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_user_limits(png_, 0x7fffffff, 0x7fffffff);
    png_read_info(png_, info_);
    image_.width = png_get_image_width(png_, info_);
    image_.height = png_get_image_height(png_, info_);
    return true;
  }

  // (H, W, 4): transparent colours become opacity before 16 bits become their upper 8.
  bool ReadRows() {
    if (setjmp(give_up_) != 0) return false;
    png_set_expand(png_);
    png_set_strip_16(png_);
    png_set_gray_to_rgb(png_);
    png_set_add_alpha(png_, 0xFF, PNG_FILLER_AFTER);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    if (png_get_rowbytes(png_, info_) != row_bytes_) png_error(png_, "an unknown kind of pixels");
    png_read_image(png_, rows_.data());
    return true;
  }

  void ReadEnd() {
    if (setjmp(give_up_) != 0) return;
    png_read_end(png_, info_);
  }

  int Orientation() {
    png_bytep block = nullptr;
    png_uint_32 size = 0;
#ifdef PNG_eXIf_SUPPORTED
    if (png_get_eXIf_1(png_, info_, &size, &block) != 0) {
      const int found = OrientationOf(block, size);
      if (found > 0) return found;
    }
#endif
    png_textp texts = nullptr;
    const int count = png_get_text(png_, info_, &texts, nullptr);
    for (int i = 0; i < count; ++i) {
      const png_text& text = texts[i];
      if (std::strcmp(text.key, "XML:com.adobe.xmp") != 0 || text.text == nullptr) continue;
      const auto* xmp = reinterpret_cast<const std::uint8_t*>(text.text);
      return OrientationInXmp(xmp, std::strlen(text.text));
    }
    return 0;
  }

  void Split() {
    const std::size_t count = data_.size() / 4;
    image_.pixels.resize(3 * count);
    image_.opacity.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
      std::memcpy(image_.pixels.data() + 3 * i, data_.data() + 4 * i, 3);
      image_.opacity[i] = data_[4 * i + 3];
    }
  }

  const std::vector<char>& bytes_;
  std::size_t at_ = 0, row_bytes_ = 0;
  Image image_;
  std::vector<std::uint8_t> data_;
  std::vector<png_bytep> rows_;
  char message_[200] = "no memory";
  jmp_buf give_up_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

}  // namespace

Image DecodePng(const std::vector<char>& bytes) { return Reader(bytes).Read(); }

}  // namespace infer
