#include "kdn-node/admin/quota_book.h"

#include <fmt/format.h>

#include <charconv>
#include <sstream>
#include <utility>

#include "storage/base/small_file.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr std::string_view kQuotaHeader = "kdn-quotas 1";
constexpr std::string_view kDefaultWord = "default";
constexpr size_t kMaxQuotaFileBytes = 1 << 18;

bool IsShare(double share) { return share >= 0 && share <= 1; }  // and a number

std::optional<double> ParseShare(const std::string& text) {
  double share = 0;
  const char* const end = text.data() + text.size();
  const auto [parsed, error] = std::from_chars(text.data(), end, share);
  if (error != std::errc() || parsed != end || !IsShare(share)) return std::nullopt;
  return share;
}

}  // namespace

absl::StatusOr<std::shared_ptr<QuotaBook>> QuotaBook::Open(const std::string& directory, const SpaceQuotas& flags) {
  std::shared_ptr<QuotaBook> book(new QuotaBook(directory.empty() ? "" : directory + "/quotas", flags));
  KDN_RETURN_IF_ERROR(book->Load());
  return book;
}

absl::Status QuotaBook::Load() {
  if (path_.empty()) return absl::OkStatus();
  const absl::StatusOr<std::string> text = ReadSmallFile(path_, kMaxQuotaFileBytes);
  if (absl::IsNotFound(text.status())) return absl::OkStatus();
  if (absl::IsUnavailable(text.status())) return Annotate(text.status(), "quotas");
  const auto garbled = [&](size_t line) {
    return DataLoss(
        "{}, line {}: this is no quota; mend it, or remove the file and set the quotas again (kdnctl spaces quota)",
        path_, line);
  };
  if (!text.ok()) return garbled(1);
  std::istringstream lines(*text);
  std::string line;
  if (!std::getline(lines, line) || line != kQuotaHeader) return garbled(1);
  MutexLock lock(mu_);
  for (size_t number = 2; std::getline(lines, line); ++number) {
    std::istringstream words(line);
    std::string name, share_text, more;
    if (!(words >> name >> share_text) || words >> more) return garbled(number);
    const std::optional<double> share = ParseShare(share_text);
    if (!share.has_value()) return garbled(number);
    if (name == kDefaultWord) {
      if (set_.each.has_value()) return garbled(number);
      set_.each = share;
      continue;
    }
    const absl::StatusOr<SpaceId> space = SpaceId::FromHex(name);
    if (!space.ok() || !set_.named.emplace(*space, *share).second) return garbled(number);
    if (set_.named.size() > kMaxRunTimeQuotas) return garbled(number);
  }
  return absl::OkStatus();
}

absl::Status QuotaBook::Save(const RunTime& quotas) const {
  if (path_.empty()) return absl::OkStatus();
  std::string text = fmt::format("{}\n", kQuotaHeader);
  if (quotas.each.has_value()) text += fmt::format("{} {}\n", kDefaultWord, *quotas.each);
  for (const auto& [space, share] : quotas.named) text += fmt::format("{} {}\n", space.ToHex(), share);
  return ReplaceFile(path_, text, Durability::kSynced);
}

SpaceQuotas QuotaBook::Merged() const {
  SpaceQuotas merged = flags_;
  if (set_.each.has_value()) merged.each = *set_.each;
  for (const auto& [space, share] : set_.named) merged.named[space] = share;
  return merged;
}

SpaceQuotas QuotaBook::InForce() const {
  MutexLock lock(mu_);
  return Merged();
}

QuotaInForce QuotaBook::DefaultLocked() const {
  if (set_.each.has_value()) return {.share = *set_.each, .source = QuotaSource::kRunTime};
  if (flags_.each < 1) return {.share = flags_.each, .source = QuotaSource::kFlag};
  return {};
}

QuotaInForce QuotaBook::Default() const {
  MutexLock lock(mu_);
  return DefaultLocked();
}

QuotaInForce QuotaBook::Of(const SpaceId& space) const {
  MutexLock lock(mu_);
  if (const auto set = set_.named.find(space); set != set_.named.end()) {
    return {.share = set->second, .source = QuotaSource::kRunTime, .own = true};
  }
  if (const auto flag = flags_.named.find(space); flag != flags_.named.end()) {
    return {.share = flag->second, .source = QuotaSource::kFlag, .own = true};
  }
  return DefaultLocked();
}

std::map<SpaceId, QuotaInForce> QuotaBook::Named() const {
  std::map<SpaceId, QuotaInForce> named;
  MutexLock lock(mu_);
  for (const auto& [space, share] : flags_.named) {
    named[space] = {.share = share, .source = QuotaSource::kFlag, .own = true};
  }
  for (const auto& [space, share] : set_.named) {
    named[space] = {.share = share, .source = QuotaSource::kRunTime, .own = true};
  }
  return named;
}

absl::Status QuotaBook::Set(const std::optional<SpaceId>& space, const std::optional<double>& share,
                            const std::function<absl::Status(const SpaceQuotas&)>& apply) {
  if (share.has_value() && !IsShare(*share)) {
    return InvalidArgument("share: {} is none; give 0 (nothing) to 1 (no limit)", *share);
  }
  MutexLock change(change_mu_);
  RunTime next;
  {
    MutexLock lock(mu_);
    next = set_;
  }
  if (!space.has_value()) {
    next.each = share;
  } else if (share.has_value()) {
    next.named[*space] = *share;
  } else {
    next.named.erase(*space);
  }
  if (next.named.size() > kMaxRunTimeQuotas) {
    return ResourceExhausted("{} spaces have a quota that was set at run time; take one back, or set the default",
                             kMaxRunTimeQuotas);
  }
  KDN_RETURN_IF_ERROR(Save(next));
  SpaceQuotas in_force;
  {
    MutexLock lock(mu_);
    set_ = std::move(next);
    in_force = Merged();
  }
  return apply(in_force);
}

}  // namespace kdn
