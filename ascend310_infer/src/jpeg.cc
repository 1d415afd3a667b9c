#include <csetjmp>
#include <cstring>
#include <string>

// clang-format off: they need what stands before them
#include <cstddef>
#include <cstdio>
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include "errors.h"
#include "image_file.h"
#include "text.h"

namespace infer {
namespace {

constexpr int kMostScans = 100;
constexpr char kExif[] = "Exif\0", kXmp[] = "http://ns.adobe.com/xap/1.0/";  // and a zero each

// Its members outlive the jumps, so that nothing is left behind by one.
class Reader {
 public:
  explicit Reader(const std::vector<char>& bytes) : bytes_(bytes) {
    jpeg_.err = jpeg_std_error(&errors_);
    errors_.error_exit = OnError;
    errors_.emit_message = OnMessage;
    jpeg_.client_data = this;
    monitor_.progress_monitor = OnProgress;
  }
  ~Reader() {
    if (is_made_) jpeg_destroy_decompress(&jpeg_);
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  Image Read() {
    if (!ReadHeader()) Fail();
    CheckSize(jpeg_.image_width, jpeg_.image_height);
    image_.width = jpeg_.image_width;
    image_.height = jpeg_.image_height;
    const std::size_t pixels = static_cast<std::size_t>(image_.width * image_.height);
    is_cmyk_ = jpeg_.jpeg_color_space == JCS_CMYK || jpeg_.jpeg_color_space == JCS_YCCK;
    image_.pixels.resize(3 * pixels);
    row_.resize(static_cast<std::size_t>(4 * image_.width));
    image_.orientation = Orientation();
    if (!ReadRows()) Fail();
    return std::move(image_);
  }

 private:
  [[noreturn]] void Fail() const {
    throw UserError("not a readable JPEG (" + Shown(message_, 200) + ")");
  }

  static Reader* Of(j_common_ptr common) { return static_cast<Reader*>(common->client_data); }

  static void OnError(j_common_ptr common) {
    Reader* reader = Of(common);
    (*common->err->format_message)(common, reader->message_);
    longjmp(reader->give_up_, 1);
  }

  // Of warnings only the end of the file is an error, as in Pillow.
  static void OnMessage(j_common_ptr common, int level) {
    if (level < 0 && common->err->msg_code == JWRN_JPEG_EOF) OnError(common);
  }

  static void OnProgress(j_common_ptr common) {
    if (reinterpret_cast<j_decompress_ptr>(common)->input_scan_number <= kMostScans) return;
    std::strcpy(Of(common)->message_, "more than 100 scans; save it anew");
    longjmp(Of(common)->give_up_, 1);
  }

  bool ReadHeader() {
    if (setjmp(give_up_) != 0) return false;
    jpeg_create_decompress(&jpeg_);
    is_made_ = true;
    jpeg_.client_data = this;
    jpeg_.progress = &monitor_;
    jpeg_mem_src(&jpeg_, reinterpret_cast<const unsigned char*>(bytes_.data()),
                 static_cast<unsigned long>(bytes_.size()));
    jpeg_save_markers(&jpeg_, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(&jpeg_, TRUE);
    return true;
  }

  bool ReadRows() {
    if (setjmp(give_up_) != 0) return false;
    jpeg_.out_color_space = is_cmyk_ ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(&jpeg_);
    while (jpeg_.output_scanline < jpeg_.output_height) {
      std::uint8_t* place = image_.pixels.data() + 3 * image_.width * jpeg_.output_scanline;
      JSAMPROW row = is_cmyk_ ? row_.data() : place;
      jpeg_read_scanlines(&jpeg_, &row, 1);
      if (is_cmyk_) FromCmyk(place);
    }
    return true;
  }

  // Adobe's programs store them inverted, and Pillow takes all for theirs.
  void FromCmyk(std::uint8_t* place) const {
    for (std::int64_t x = 0; x < image_.width; ++x) {
      const std::uint8_t* ink = row_.data() + 4 * x;
      for (int channel = 0; channel < 3; ++channel) {
        const int white = ink[3], product = (255 - ink[channel]) * white + 128;
        const int value = white - (((product >> 8) + product) >> 8);
        *place++ = static_cast<std::uint8_t>(value < 0 ? 0 : value);
      }
    }
  }

  int Orientation() const {
    int in_xmp = 0;
    for (auto* marker = jpeg_.marker_list; marker != nullptr; marker = marker->next) {
      const std::uint8_t* data = marker->data;
      const std::size_t size = marker->data_length;
      if (marker->marker != JPEG_APP0 + 1) continue;
      if (size > sizeof(kExif) && std::memcmp(data, kExif, sizeof(kExif)) == 0) {
        const int found = OrientationOf(data + sizeof(kExif), size - sizeof(kExif));
        if (found > 0) return found;
      } else if (size > sizeof(kXmp) && std::memcmp(data, kXmp, sizeof(kXmp)) == 0) {
        in_xmp = OrientationInXmp(data + sizeof(kXmp), size - sizeof(kXmp));
      }
    }
    return in_xmp;
  }

  const std::vector<char>& bytes_;
  Image image_;
  std::vector<std::uint8_t> row_;
  bool is_made_ = false, is_cmyk_ = false;
  char message_[JMSG_LENGTH_MAX] = "";
  jmp_buf give_up_;
  jpeg_error_mgr errors_{};
  jpeg_progress_mgr monitor_{};
  jpeg_decompress_struct jpeg_{};
};

}  // namespace

bool CanReadImages() { return true; }

Image DecodeJpeg(const std::vector<char>& bytes) { return Reader(bytes).Read(); }

}  // namespace infer
