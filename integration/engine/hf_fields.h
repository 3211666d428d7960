// HfFields: typed reads of one object of a Hugging Face config.json, with errors that name the field.
//
//   const HfFields fields(json, "");
//   uint32_t layers = 0;
//   KDN_RETURN_IF_ERROR(fields.Read("num_hidden_layers", layers, /*required=*/true));
//
// A field that is absent or null leaves its default.
//
// Thread-safety: const methods from any thread. The object outlives it.
#ifndef KDN_INTEGRATION_ENGINE_HF_FIELDS_H_
#define KDN_INTEGRATION_ENGINE_HF_FIELDS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "storage/base/status.h"

namespace kdn::engine {

class HfFields {
 public:
  // `path` stands before the names of fields in messages: "" or "rope_scaling.".
  HfFields(const nlohmann::json& object, std::string path) : object_(object), path_(std::move(path)) {}

  const nlohmann::json* Find(const char* field) const {
    const auto it = object_.find(field);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  absl::Status Read(const char* field, uint32_t& value, bool required = false) const {
    const nlohmann::json* json = Find(field);
    if (json == nullptr) return Absent(field, required);
    if (!json->is_number_unsigned() || json->get<uint64_t>() > UINT32_MAX) {
      return Wrong(field, *json, "a whole number from 0 to 2^32-1");
    }
    value = json->get<uint32_t>();
    return absl::OkStatus();
  }

  absl::Status Read(const char* field, double& value, bool required = false) const {
    const nlohmann::json* json = Find(field);
    if (json == nullptr) return Absent(field, required);
    if (!json->is_number()) return Wrong(field, *json, "a number");
    value = json->get<double>();
    return absl::OkStatus();
  }

  absl::Status Read(const char* field, bool& value) const {
    const nlohmann::json* json = Find(field);
    if (json == nullptr) return absl::OkStatus();
    if (!json->is_boolean()) return Wrong(field, *json, "true or false");
    value = json->get<bool>();
    return absl::OkStatus();
  }

  absl::Status Read(const char* field, std::string& value) const {
    const nlohmann::json* json = Find(field);
    if (json == nullptr) return absl::OkStatus();
    if (!json->is_string()) return Wrong(field, *json, "a string");
    value = json->get<std::string>();
    return absl::OkStatus();
  }

  // A switch that this engine knows in one position only.
  absl::Status MustBeFalse(const char* field) const {
    bool value = false;
    KDN_RETURN_IF_ERROR(Read(field, value));
    if (value) return Unimplemented("config.json: {}{} is true; this engine has no such term", path_, field);
    return absl::OkStatus();
  }

  absl::Status Wrong(const char* field, const nlohmann::json& value, const char* must_be) const {
    return InvalidArgument("config.json: {}{} is {}; it must be {}", path_, field, value.dump(), must_be);
  }

 private:
  absl::Status Absent(const char* field, bool required) const {
    if (required) return InvalidArgument("config.json: {}{} is missing", path_, field);
    return absl::OkStatus();
  }

  const nlohmann::json& object_;
  const std::string path_;
};

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_HF_FIELDS_H_
