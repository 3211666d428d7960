#include "storage/eviction/replay/trace.h"

#include <fmt/ostream.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_map.h"
#include "storage/base/status.h"

namespace kdn::replay {
namespace {

using nlohmann::json;

absl::Status ReadUnsigned(const json& object, const char* field, uint64_t limit, uint64_t& value) {
  const auto it = object.find(field);
  if (it == object.end() || !it->is_number_unsigned()) return InvalidArgument("'{}' is not an unsigned number", field);
  value = it->get<uint64_t>();
  if (value > limit) return InvalidArgument("'{}' is {}, over {}", field, value, limit);
  return absl::OkStatus();
}

class Parser {
 public:
  explicit Parser(const std::string& name) { trace_.name = name; }

  absl::Status AddLine(const std::string& line) {
    const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) return InvalidArgument("not a JSON object");
    constexpr uint64_t kMax = std::numeric_limits<uint32_t>::max();
    uint64_t input = 0;
    uint64_t output = 0;
    Request request;
    KDN_RETURN_IF_ERROR(ReadUnsigned(object, "timestamp", std::numeric_limits<int64_t>::max(), request.timestamp_ms));
    KDN_RETURN_IF_ERROR(ReadUnsigned(object, "input_length", kMax, input));
    KDN_RETURN_IF_ERROR(ReadUnsigned(object, "output_length", kMax, output));
    request.input_tokens = static_cast<uint32_t>(input);
    request.output_tokens = static_cast<uint32_t>(output);
    request.first_block = static_cast<uint32_t>(trace_.blocks.size());
    const auto ids = object.find("hash_ids");
    if (ids == object.end() || !ids->is_array()) return InvalidArgument("'hash_ids' is not an array");
    if (trace_.blocks.size() + ids->size() >= kMax) return InvalidArgument("more than {} block references", kMax);
    uint32_t parent = kRoot;
    for (const json& id : *ids) {
      if (!id.is_number_unsigned()) return InvalidArgument("'hash_ids' holds something that is not an unsigned number");
      KDN_ASSIGN_OR_RETURN(parent, Intern(id.get<uint64_t>(), parent));
      trace_.blocks.push_back(parent);
    }
    request.block_count = static_cast<uint32_t>(ids->size());
    trace_.requests.push_back(request);
    return absl::OkStatus();
  }

  Trace Take() && {
    trace_.distinct_blocks = static_cast<uint32_t>(parents_.size());
    return std::move(trace_);
  }

 private:
  static constexpr uint32_t kRoot = std::numeric_limits<uint32_t>::max();

  absl::StatusOr<uint32_t> Intern(uint64_t id, uint32_t parent) {
    const auto [it, is_new] = dense_.try_emplace(id, static_cast<uint32_t>(parents_.size()));
    if (is_new) parents_.push_back(parent);
    if (parents_[it->second] != parent) {
      return InvalidArgument("block {} follows another block than where it was first seen", id);
    }
    return it->second;
  }

  Trace trace_;
  absl::flat_hash_map<uint64_t, uint32_t> dense_;
  std::vector<uint32_t> parents_;
};

}  // namespace

absl::StatusOr<Trace> ParseTrace(std::istream& in, const std::string& name) {
  Parser parser(name);
  size_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (line.empty()) continue;
    if (const absl::Status status = parser.AddLine(line); !status.ok()) {
      return Annotate(status, fmt::format("trace {}, line {}", name, number));
    }
  }
  if (number == 0) return InvalidArgument("trace {}: it is empty", name);
  return std::move(parser).Take();
}

absl::StatusOr<Trace> ReadTrace(const std::string& path) {
  std::ifstream file(path);
  if (!file) return NotFound("trace {}: cannot be opened", path);
  return ParseTrace(file, std::filesystem::path(path).stem().string());
}

void WriteTrace(const Trace& trace, std::ostream& out) {
  for (const Request& r : trace.requests) {
    fmt::print(out,
               R"({{"timestamp": {}, "input_length": {}, "output_length": {}, "hash_ids": [{}]}})"
               "\n",
               r.timestamp_ms, r.input_tokens, r.output_tokens, fmt::join(trace.BlocksOf(r), ", "));
  }
}

}  // namespace kdn::replay
