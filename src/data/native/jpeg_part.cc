// Part of a JPEG, without the rest of its pixels: rows above it are skipped, rows below it are not read,
// and columns beside it are not transformed. What is called is the decoder that Pillow has loaded, so the
// pixels are those of the whole image.
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

// The application's half of jconfig.h: Debian's is for another version of the interface than Pillow's.
#define JCONFIG_INCLUDED
#define JPEG_LIB_VERSION JPEG_INTERFACE
#define BITS_IN_JSAMPLE 8
#define MEM_SRCDST_SUPPORTED 1
#include <jpeglib.h>

namespace {

struct Decoder {
  decltype(&jpeg_std_error) std_error;
  decltype(&jpeg_CreateDecompress) create;
  decltype(&jpeg_mem_src) read_from;
  decltype(&jpeg_read_header) read_header;
  decltype(&jpeg_start_decompress) start;
  decltype(&jpeg_crop_scanline) crop;
  decltype(&jpeg_skip_scanlines) skip;
  decltype(&jpeg_read_scanlines) read_rows;
  decltype(&jpeg_destroy_decompress) destroy;
};

// Smoothing of colours looks one sample beyond, which is two pixels.
constexpr int64_t kMargin = 2;
constexpr uint8_t kMark = 0xff, kEnd = 0xd9, kFirstRestart = 0xd0, kLastRestart = 0xd7;

struct Errors {
  jpeg_error_mgr base;
  jmp_buf give_up;
};

void on_error(j_common_ptr common) { longjmp(reinterpret_cast<Errors *>(common->err)->give_up, 1); }

// Warnings are below 0: whoever reads the whole image decides what they mean.
void on_message(j_common_ptr common, int level) {
  if (level < 0) on_error(common);
}

// Whether nothing but compressed rows follows, then the end.
bool ends_whole(const uint8_t *next, const uint8_t *end) {
  while (next < end && (next = static_cast<const uint8_t *>(std::memchr(next, kMark, end - next)))) {
    while (next < end && *next == kMark) ++next;
    if (next == end) return false;
    if (*next == kEnd) return true;
    if (*next != 0 && (*next < kFirstRestart || *next > kLastRestart)) return false;
  }
  return false;
}

}  // namespace

// Reads (box[3], box[2]) pixels RGB at column box[0] and row box[1] into `pixels`, which holds `room` bytes, and
// sets box to what was read: more columns, the same rows. 0: done; else nothing is said of the image, and
// whoever asks reads all of it.
extern "C" int jpeg_part_read(const Decoder *decoder, const uint8_t *data, size_t size, int64_t *box,
                              uint8_t *pixels, size_t room) {
  jpeg_decompress_struct image;
  Errors errors;
  image.err = decoder->std_error(&errors.base);
  errors.base.error_exit = on_error;
  errors.base.emit_message = on_message;
  image.mem = nullptr;  // for an error before there is any
  if (setjmp(errors.give_up)) {
    if (image.mem != nullptr) decoder->destroy(&image);
    return 1;
  }
  decoder->create(&image, JPEG_LIB_VERSION, sizeof(image));
  decoder->read_from(&image, data, size);
  decoder->read_header(&image, TRUE);
  // Of several scans the last one finishes the first row.
  const bool is_one_scan = image.progressive_mode == FALSE && image.comps_in_scan == image.num_components;
  const int64_t wide = image.image_width, high = image.image_height;
  const bool fits = box[0] >= 0 && box[1] >= 0 && box[2] > 0 && box[3] > 0 && box[0] + box[2] <= wide &&
                    box[1] + box[3] <= high;
  if (!is_one_scan || !fits) on_error(reinterpret_cast<j_common_ptr>(&image));
  image.out_color_space = JCS_RGB;
  decoder->start(&image);
  const int64_t from = box[0] > kMargin ? box[0] - kMargin : 0;
  const int64_t to = box[0] + box[2] + kMargin < wide ? box[0] + box[2] + kMargin : wide;
  JDIMENSION left = static_cast<JDIMENSION>(from), columns = static_cast<JDIMENSION>(to - from);
  decoder->crop(&image, &left, &columns);
  const size_t row_bytes = size_t{3} * columns;
  if (row_bytes * static_cast<size_t>(box[3]) > room) on_error(reinterpret_cast<j_common_ptr>(&image));
  if (box[1] > 0) decoder->skip(&image, static_cast<JDIMENSION>(box[1]));
  for (JDIMENSION row = 0; row < box[3];) {
    JSAMPROW place = pixels + row * row_bytes;
    row += decoder->read_rows(&image, &place, 1);
  }
  // The end may have been met on the way.
  const bool is_whole = image.unread_marker == kEnd || ends_whole(image.src->next_input_byte, data + size);
  decoder->destroy(&image);
  box[0] = left;
  box[2] = columns;
  return is_whole ? 0 : 1;
}
