// Calls kernels as MindSpore would, on buffers of exactly their size, under a sanitizer or an emulator.
//
// A line of the output for each call: the kernel's name and, of each of its tensors of float32, sums of
// its values and of their magnitudes; places count differently.
//
// Each line of the input: a kernel's name, then its arguments, inputs first. `2x7x8` is a tensor of
// that shape, `=7,2,3` a vector with those values, `#7` an int32, `%2x7` a tensor of uint8.
#include <dlfcn.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

using Kernel = int (*)(int, void **, int *, int64_t **, const char **, void *, void *);

struct Tensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
  std::vector<int32_t> integers;
  std::vector<uint8_t> bytes;
  bool is_bytes = false;
};

std::vector<double> numbers(const std::string &text, char separator) {
  std::vector<double> found;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, separator);) found.push_back(std::stod(part));
  return found;
}

Tensor tensor(const std::string &text) {
  Tensor made;
  if (text[0] == '=') {
    for (double value : numbers(text.substr(1), ',')) made.values.push_back(static_cast<float>(value));
    made.shape = {static_cast<int64_t>(made.values.size())};
    return made;
  }
  if (text[0] == '#') {
    made.integers = {std::stoi(text.substr(1))};
    return made;
  }
  made.is_bytes = text[0] == '%';
  int64_t size = 1;
  for (double length : numbers(made.is_bytes ? text.substr(1) : text, 'x')) {
    made.shape.push_back(static_cast<int64_t>(length));
    size *= made.shape.back();
  }
  if (made.is_bytes) {
    made.bytes.assign(size, 7);
    return made;
  }
  for (int64_t i = 0; i < size; ++i) made.values.push_back(0.1f + static_cast<float>(i % 13));
  made.values.shrink_to_fit();
  return made;
}

int call(Kernel kernel, std::vector<Tensor> &tensors) {
  std::vector<void *> data;
  std::vector<int> ranks;
  std::vector<int64_t *> shapes;
  std::vector<const char *> types;
  for (Tensor &each : tensors) {
    if (each.is_bytes) {
      types.push_back("uint8");
      data.push_back(each.bytes.data());
    } else if (!each.integers.empty()) {
      types.push_back("int32");
      data.push_back(each.integers.data());
    } else {
      types.push_back("float32");
      data.push_back(each.values.data());
    }
    ranks.push_back(static_cast<int>(each.shape.size()));
    shapes.push_back(each.shape.data());
  }
  return kernel(static_cast<int>(tensors.size()), data.data(), ranks.data(), shapes.data(),
                types.data(), nullptr, nullptr);
}

void print_sums(const Tensor &tensor) {
  double sum = 0.0, magnitude = 0.0;
  for (size_t i = 0; i < tensor.values.size(); ++i) {
    const double value = static_cast<double>(tensor.values[i]) * static_cast<double>(1 + i % 17);
    sum += value;
    magnitude += std::abs(value);
  }
  std::printf(" %.9g %.9g", sum, magnitude);
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string name, word;
    words >> name;
    std::vector<Tensor> tensors;
    while (words >> word) tensors.push_back(tensor(word));
    const auto kernel = reinterpret_cast<Kernel>(dlsym(RTLD_DEFAULT, name.c_str()));
    const int status = kernel == nullptr ? -1 : call(kernel, tensors);
    if (status != 0) {
      std::fprintf(stderr, "%s: status %d\n", line.c_str(), status);
      return 1;
    }
    std::printf("%s", name.c_str());
    for (const Tensor &each : tensors) print_sums(each);
    std::printf("\n");
  }
  return 0;
}
