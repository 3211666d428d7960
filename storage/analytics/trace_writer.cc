#include "storage/analytics/trace_writer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstring>
#include <limits>
#include <string>

#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr uint32_t kNoParent = std::numeric_limits<uint32_t>::max();

uint64_t TraceHashOf(const ChunkKey& key) {
  uint64_t hash;
  std::memcpy(&hash, key.bytes.data() + 8, sizeof hash);  // the first bits are alike on one node
  return hash;
}

}  // namespace

absl::Status TraceWriter::Add(const Request& request) {
  line_.clear();
  uint32_t parent = kNoParent;
  for (const ChunkKey& key : request.keys) {
    const uint64_t hash = TraceHashOf(key);
    const auto known = ids_.find(hash);
    if (known == ids_.end()) {
      if (ids_.size() >= max_chunks_) break;
      const auto id = static_cast<uint32_t>(ids_.size());
      ids_[hash] = {.id = id, .parent = parent};
      parent = id;
    } else {
      if (known->second.parent != parent) break;
      parent = known->second.id;
    }
    line_.push_back(parent);
  }
  cut_chunks_ += request.keys.size() - line_.size();
  ++requests_;
  const std::string line =
      fmt::format(R"({{"timestamp": {}, "input_length": {}, "output_length": {}, "hash_ids": [{}]}})"
                  "\n",
                  request.milliseconds, request.input_tokens, request.output_tokens, fmt::join(line_, ", "));
  out_.write(line.data(), static_cast<std::streamsize>(line.size()));
  if (!out_.good()) {
    return DataLoss("the trace cannot be written on after {} requests; is the disk full?", requests_ - 1);
  }
  return absl::OkStatus();
}

}  // namespace kdn
