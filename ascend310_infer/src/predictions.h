// The likeliest classes of images, in the form of predict.py --output csv.
#pragma once

#include <string>
#include <vector>

namespace infer {

struct Prediction {
  std::string image;
  std::vector<std::size_t> labels;    // the likeliest first; of equal logits the lower label
  std::vector<double> probabilities;  // of the softmax over all classes
};

Prediction BestOf(const std::string& image, const float* logits, std::size_t num_classes,
                  std::size_t top_k);

// A row for each image and rank, from 1.
std::string ToCsv(const std::vector<Prediction>& predictions,
                  const std::vector<std::string>& names);

// A name as a cell: no formula of a spreadsheet, nothing that a terminal obeys.
std::string ToCell(const std::string& name);

}  // namespace infer
