#include "kdn-client/blend/blend_profile.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "storage/base/small_file.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kFormat = "kdn-blend-profile";
constexpr const char* kHigher = "higher";
constexpr const char* kLower = "lower";
constexpr int kMostDepth = 2;
constexpr double kRounding = 1e-9;  // of means that are written in decimals: 0.99 - 0.98 is above 0.01
constexpr std::string_view kMend = "calibrate anew";

// A value as an error repeats it.
std::string Shown(const Json& value) {
  if (value.is_structured()) return value.is_array() ? "an array" : "an object";
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  constexpr size_t kMostShown = 100;
  if (text.size() > kMostShown) text = text.substr(0, kMostShown) + "…";
  return text;
}

// Takes the fields of an object one after the other; what is left at the end is not known.
class Fields {
 public:
  Fields(const Json& object, std::string prefix) : object_(object), prefix_(std::move(prefix)) {}

  absl::Status Read(const char* name, std::string& value) {
    const Json* json = Take(name);
    if (json == nullptr) return Missing(name);
    if (!json->is_string()) return Wrong(name, *json, "a string");
    value = json->get<std::string>();
    return absl::OkStatus();
  }
  absl::Status Read(const char* name, bool& value) {
    const Json* json = Take(name);
    if (json == nullptr) return Missing(name);
    if (!json->is_boolean()) return Wrong(name, *json, "true or false");
    value = json->get<bool>();
    return absl::OkStatus();
  }
  absl::Status Read(const char* name, double& value) {
    const Json* json = Take(name);
    if (json == nullptr) return Missing(name);
    if (!json->is_number()) return Wrong(name, *json, "a number");
    value = json->get<double>();
    return absl::OkStatus();
  }
  absl::Status Read(const char* name, uint32_t& value) {
    const Json* json = Take(name);
    if (json == nullptr) return Missing(name);
    if (!json->is_number_unsigned() || json->get<uint64_t>() > UINT32_MAX) {
      return Wrong(name, *json, "a whole number below 2^32");
    }
    value = json->get<uint32_t>();
    return absl::OkStatus();
  }
  absl::StatusOr<const Json*> Object(const char* name) {
    const Json* json = Take(name);
    if (json == nullptr) return Missing(name);
    if (!json->is_object()) return Wrong(name, *json, "an object");
    return json;
  }

  absl::Status AllTaken() const {
    for (const auto& [name, _] : object_.items()) {
      if (taken_.contains(name)) continue;
      return InvalidArgument("{} is not known to version {}; remove it, or {}", Name(Shown(Json(name))),
                             kBlendProfileVersion, kMend);
    }
    return absl::OkStatus();
  }

 private:
  const Json* Take(const char* name) {
    taken_.insert(name);
    const auto it = object_.find(name);
    return it == object_.end() ? nullptr : &*it;
  }
  std::string Name(std::string_view name) const { return fmt::format("field {}{}", prefix_, name); }
  absl::Status Missing(const char* name) const { return InvalidArgument("{} is missing; {}", Name(name), kMend); }
  absl::Status Wrong(const char* name, const Json& json, const char* wanted) const {
    return InvalidArgument("{} is {}; it must be {}", Name(name), Shown(json), wanted);
  }

  const Json& object_;
  const std::string prefix_;
  std::set<std::string, std::less<>> taken_;
};

// JSON whose objects name no field twice, none of them deep.
absl::StatusOr<Json> ParseStrictly(std::string_view text) {
  std::vector<std::set<std::string>> names;  // of the objects that are open
  std::string twice;
  bool deep = false;
  const auto look = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (deep) return false;
    if (event == Json::parse_event_t::object_start) names.emplace_back();
    if (event == Json::parse_event_t::object_end) names.pop_back();
    if (event == Json::parse_event_t::key && !names.back().insert(parsed.get<std::string>()).second) {
      twice = Shown(parsed);
    }
    const bool opens = event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start;
    deep = opens && depth >= kMostDepth;
    return !deep;
  };
  Json json = Json::parse(text, look, /*allow_exceptions=*/false);
  if (json.is_discarded()) return InvalidArgument("this is no JSON; {}", kMend);
  if (deep) return InvalidArgument("objects or arrays lie more than {} deep; {}", kMostDepth, kMend);
  if (!twice.empty()) return InvalidArgument("field {} is there twice; remove one", twice);
  if (!json.is_object()) return InvalidArgument("this is {}, no object; {}", Shown(json), kMend);
  return json;
}

absl::Status ReadQuality(const Json& object, BlendQuality& quality) {
  Fields fields(object, "quality.");
  std::string better;
  KDN_RETURN_IF_ERROR(fields.Read("metric", quality.metric));
  KDN_RETURN_IF_ERROR(fields.Read("better", better));
  if (better != kHigher && better != kLower) {
    return InvalidArgument("field quality.better is {}; it must be \"{}\" or \"{}\"", Shown(Json(better)), kHigher,
                           kLower);
  }
  quality.higher_is_better = better == kHigher;
  KDN_RETURN_IF_ERROR(fields.Read("full", quality.full));
  KDN_RETURN_IF_ERROR(fields.Read("plain_reuse", quality.plain_reuse));
  KDN_RETURN_IF_ERROR(fields.Read("blended", quality.blended));
  KDN_RETURN_IF_ERROR(fields.Read("random", quality.random));
  KDN_RETURN_IF_ERROR(fields.Read("prompts", quality.prompts));
  return fields.AllTaken();
}

absl::Status ReadText(Fields& fields, BlendProfile& profile) {
  std::string space, schedule, made;
  KDN_RETURN_IF_ERROR(fields.Read("space", space));
  absl::StatusOr<SpaceId> id = SpaceId::FromHex(space);
  if (!id.ok()) return InvalidArgument("field space is no space id: {}", MessageOf(id.status()));
  profile.space = *id;
  KDN_RETURN_IF_ERROR(fields.Read("model", profile.model));
  KDN_RETURN_IF_ERROR(fields.Read("schedule", schedule));
  absl::StatusOr<BlendSchedule> parsed = ParseSchedule(schedule);
  if (!parsed.ok()) return Annotate(parsed.status(), "field schedule");
  profile.schedule = *std::move(parsed);
  KDN_RETURN_IF_ERROR(fields.Read("made", made));
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, made.c_str(), &profile.made, &error)) {
    return InvalidArgument("field made is {}, no time like 2026-01-31T12:00:00Z", Shown(Json(made)));
  }
  return fields.Read("made_by", profile.made_by);
}

absl::StatusOr<BlendProfile> ReadProfile(const Json& json) {
  Fields fields(json, "");
  // What it is comes first: another file, or another version, has other fields.
  std::string format;
  KDN_RETURN_IF_ERROR(fields.Read("format", format));
  if (format != kFormat) {
    return InvalidArgument("field format is {}, not \"{}\": this is another file", Shown(Json(format)), kFormat);
  }
  uint32_t version = 0;
  KDN_RETURN_IF_ERROR(fields.Read("version", version));
  if (version != kBlendProfileVersion) {
    return InvalidArgument("field version is {}; this build reads {}; {}", version, kBlendProfileVersion, kMend);
  }
  BlendProfile profile;
  KDN_RETURN_IF_ERROR(ReadText(fields, profile));
  KDN_RETURN_IF_ERROR(fields.Read("floor", profile.floor));
  KDN_ASSIGN_OR_RETURN(const Json* quality, fields.Object("quality"));
  KDN_RETURN_IF_ERROR(ReadQuality(*quality, profile.quality));
  KDN_RETURN_IF_ERROR(fields.Read("tolerance", profile.tolerance));
  KDN_RETURN_IF_ERROR(fields.Read("passed", profile.passed));
  KDN_RETURN_IF_ERROR(fields.AllTaken());
  KDN_RETURN_IF_ERROR(ValidateBlendProfile(profile));
  return profile;
}

absl::Status CheckName(const char* field, const std::string& value) {
  if (value.empty()) return InvalidArgument("field {} is empty", field);
  if (value.size() > kMaxBlendProfileString) {
    return InvalidArgument("field {} has {} bytes, over {}", field, value.size(), kMaxBlendProfileString);
  }
  // An encoder that is told to be strict throws at what is no UTF-8; this asks the parser, which does not.
  if (!Json::accept('"' + value + '"')) {
    return InvalidArgument("field {} has quotes, backslashes, control characters or bytes that are no UTF-8", field);
  }
  return absl::OkStatus();
}

}  // namespace

bool Passes(const BlendQuality& quality, double tolerance) {
  const double worse = quality.higher_is_better ? quality.full - quality.blended : quality.blended - quality.full;
  return quality.prompts > 0 && worse <= tolerance + kRounding * std::max(1.0, std::abs(quality.full));
}

absl::Status ValidateBlendProfile(const BlendProfile& profile) {
  if (profile.space.IsZero()) return InvalidArgument("field space is all zero; it must be the id of a space");
  if (profile.model.size() > kMaxSpaceString) {
    return InvalidArgument("field model has {} bytes, over {}", profile.model.size(), kMaxSpaceString);
  }
  if (absl::Status status = ValidateSchedule(profile.schedule, kMaxLayers); !status.ok()) {
    return Annotate(status, "field schedule");
  }
  if (profile.schedule.checks.empty()) {
    return InvalidArgument(
        "field schedule is \"full\"; a profile needs a check, for there is nothing to blend without");
  }
  const double last = profile.schedule.checks.back().ratio;
  if (!(profile.floor > 0 && profile.floor <= last)) {
    return InvalidArgument("field floor is {}; it must be above 0 and at most {}, the schedule's last ratio",
                           profile.floor, last);
  }
  const BlendQuality& quality = profile.quality;
  KDN_RETURN_IF_ERROR(CheckName("quality.metric", quality.metric));
  const std::array<std::pair<const char*, double>, 5> numbers = {{{"quality.full", quality.full},
                                                                  {"quality.plain_reuse", quality.plain_reuse},
                                                                  {"quality.blended", quality.blended},
                                                                  {"quality.random", quality.random},
                                                                  {"tolerance", profile.tolerance}}};
  for (const auto& [name, value] : numbers) {
    if (!std::isfinite(value)) return InvalidArgument("field {} is {}; it must be a finite number", name, value);
  }
  if (profile.tolerance < 0) return InvalidArgument("field tolerance is {}; it must not be below 0", profile.tolerance);
  if (profile.passed != Passes(quality, profile.tolerance)) {
    return InvalidArgument(
        "field passed is {}, but blended is {} and full {} over {} prompts, {} being better, and the tolerance {}; {}",
        profile.passed, quality.blended, quality.full, quality.prompts, quality.higher_is_better ? kHigher : kLower,
        profile.tolerance, kMend);
  }
  if (profile.made == absl::InfiniteFuture() || profile.made == absl::InfinitePast()) {
    return InvalidArgument("field made is no time");
  }
  return CheckName("made_by", profile.made_by);
}

absl::Status BlendProfile::CheckFor(const KvSpace& of) const {
  KDN_RETURN_IF_ERROR(Annotate(ValidateBlendProfile(*this), "blend profile"));
  KDN_ASSIGN_OR_RETURN(const SpaceId id, ComputeSpaceId(of));
  if (space != id) {
    return FailedPrecondition(
        "blend profile: field space is {} (model '{}'), but the engine's space is {} (model '{}'): every space needs a "
        "profile of its own; calibrate one for it",
        space.ToShortHex(), model, id.ToShortHex(), of.model_id);
  }
  if (!passed) {
    return FailedPrecondition(
        "blend profile: field passed is false: blended was {} where full was {} ({}, {} prompts), beyond the tolerance "
        "of {}; calibrate with more layers to check at, larger ratios, or another tolerance",
        quality.blended, quality.full, quality.metric, quality.prompts, tolerance);
  }
  return Annotate(ValidateSchedule(schedule, LayerCount(of)), "blend profile: field schedule");
}

absl::StatusOr<std::string> EncodeBlendProfile(const BlendProfile& profile) {
  KDN_RETURN_IF_ERROR(ValidateBlendProfile(profile));
  const BlendQuality& quality = profile.quality;
  const nlohmann::ordered_json json = {
      {"format", kFormat},
      {"version", kBlendProfileVersion},
      {"space", profile.space.ToHex()},
      {"model", profile.model},
      {"schedule", FormatSchedule(profile.schedule)},
      {"floor", profile.floor},
      {"quality",
       {{"metric", quality.metric},
        {"better", quality.higher_is_better ? kHigher : kLower},
        {"full", quality.full},
        {"plain_reuse", quality.plain_reuse},
        {"blended", quality.blended},
        {"random", quality.random},
        {"prompts", quality.prompts}}},
      {"tolerance", profile.tolerance},
      {"passed", profile.passed},
      {"made", absl::FormatTime(absl::RFC3339_full, profile.made, absl::UTCTimeZone())},
      {"made_by", profile.made_by},
  };
  std::string text = json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  if (text.size() > kMaxBlendProfileBytes) {
    return InvalidArgument("the profile has {} bytes, over {}; its schedule has {} checks", text.size(),
                           kMaxBlendProfileBytes, profile.schedule.checks.size());
  }
  return text;
}

absl::StatusOr<BlendProfile> DecodeBlendProfile(std::string_view json) {
  if (json.size() > kMaxBlendProfileBytes) {
    return InvalidArgument("blend profile: it has {} bytes, over {}", json.size(), kMaxBlendProfileBytes);
  }
  absl::StatusOr<Json> parsed = ParseStrictly(json);
  if (!parsed.ok()) return Annotate(parsed.status(), "blend profile");
  absl::StatusOr<BlendProfile> profile = ReadProfile(*parsed);
  if (!profile.ok()) return Annotate(profile.status(), "blend profile");
  return profile;
}

absl::Status SaveBlendProfile(const std::string& path, const BlendProfile& profile) {
  absl::StatusOr<std::string> text = EncodeBlendProfile(profile);
  if (!text.ok()) return Annotate(text.status(), path);
  return ReplaceFile(path, *text, Durability::kSynced);
}

absl::StatusOr<BlendProfile> LoadBlendProfile(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadSmallFile(path, kMaxBlendProfileBytes);
  if (absl::IsNotFound(text.status())) {
    return NotFound("{}: there is no such file; calibrate the model to have one", path);
  }
  KDN_RETURN_IF_ERROR(text.status());
  absl::StatusOr<BlendProfile> profile = DecodeBlendProfile(*text);
  if (!profile.ok()) return Annotate(profile.status(), path);
  return profile;
}

}  // namespace kdn
