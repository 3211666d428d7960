#include "kdn-node/admin/quota_answers.h"

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "kdn-node/admin/admin_wire.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr int kMostToldQuotas = 64;

v1::Quota QuotaToWire(const QuotaInForce& quota) {
  v1::Quota out;
  out.set_share(quota.share);
  if (quota.source == QuotaSource::kFlag) out.set_source(v1::Quota::SOURCE_FLAG);
  if (quota.source == QuotaSource::kRunTime) out.set_source(v1::Quota::SOURCE_RUN_TIME);
  return out;
}

}  // namespace

void AddQuotas(const QuotaBook& quotas, v1::InspectResponse& response) {
  const QuotaInForce each = quotas.Default();
  if (each.source != QuotaSource::kNone) *response.add_quotas()->mutable_quota() = QuotaToWire(each);
  for (const auto& [space, quota] : quotas.Named()) {
    if (response.quotas_size() >= kMostToldQuotas) {
      response.set_more_quotas(response.more_quotas() + 1);
      continue;
    }
    v1::NamedQuota& named = *response.add_quotas();
    named.set_space_id(DigestToWire(space));
    *named.mutable_quota() = QuotaToWire(quota);
  }
}

void AddQuotas(const QuotaBook& quotas, TieredStore& store, size_t most, v1::ListSpacesResponse& response) {
  const StoreStats stats = store.Stats();
  const auto budget_of = [&](size_t level) {
    return level == 0 ? stats.memory.budget_bytes : stats.disks[level - 1].budget_bytes;
  };
  *response.mutable_default_quota() = QuotaToWire(quotas.Default());
  std::map<SpaceId, QuotaInForce> named = quotas.Named();
  const auto tell = [&](const QuotaInForce& quota, v1::SpaceHeld& held) {
    *held.mutable_quota() = QuotaToWire(quota);
    held.set_own_quota(quota.own);
    if (quota.share >= 1) return;
    for (v1::TierShare& tier : *held.mutable_tiers()) {
      if (tier.level() > stats.disks.size()) continue;
      tier.set_quota_bytes(static_cast<uint64_t>(quota.share * static_cast<double>(budget_of(tier.level()))));
    }
  };
  for (v1::SpaceHeld& held : *response.mutable_spaces()) {
    const absl::StatusOr<SpaceId> space = SpaceId::FromBytes(AsBytes(held.space_id()));
    if (!space.ok()) continue;
    named.erase(*space);
    tell(quotas.Of(*space), held);
  }
  for (const auto& [space, quota] : named) {
    if (static_cast<size_t>(response.spaces_size()) >= most) return;
    v1::SpaceHeld& held = *response.add_spaces();
    held.set_space_id(DigestToWire(space));
    tell(quota, held);
  }
}

absl::Status ChangeQuota(QuotaBook& quotas, TieredStore& store, const v1::SetQuotaRequest& request,
                         v1::SetQuotaResponse& response) {
  KDN_ASSIGN_OR_RETURN(const std::optional<SpaceId> space, ParseOptionalSpace(request.space_id()));
  if (space.has_value() == request.each()) {
    return InvalidArgument("{}; name a space, or say `each`",
                           request.each() ? "a space is named, and all are meant" : "no space is named");
  }
  std::vector<QuotaOutcome> outcomes;
  KDN_RETURN_IF_ERROR(quotas.Set(space, request.clear() ? std::nullopt : std::optional(request.share()),
                                 [&](const SpaceQuotas& now) -> absl::Status {
                                   KDN_ASSIGN_OR_RETURN(outcomes, store.SetQuotas(now));
                                   return absl::OkStatus();
                                 }));
  *response.mutable_quota() = QuotaToWire(space.has_value() ? quotas.Of(*space) : quotas.Default());
  response.set_kept(quotas.kept());
  for (size_t level = 0; level < outcomes.size(); ++level) {
    v1::QuotaEffect& effect = *response.add_tiers();
    effect.set_level(static_cast<uint32_t>(level));
    effect.set_evicted_chunks(outcomes[level].evicted_chunks);
    effect.set_evicted_bytes(outcomes[level].evicted_bytes);
    effect.set_over_bytes(outcomes[level].over_bytes);
  }
  return absl::OkStatus();
}

}  // namespace kdn
