#include "placement/topology/assignment.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

#include "placement/topology/fair_shares.h"
#include "placement/topology/rendezvous.h"
#include "placement/topology/row_table.h"

namespace kdn {
namespace {

constexpr uint32_t kNoPlace = 0xffffffff;

std::vector<uint32_t> ZonesOf(const std::vector<Assignee>& nodes) {
  std::vector<uint32_t> zones;
  zones.reserve(nodes.size());
  for (const Assignee& node : nodes) zones.push_back(node.zone);
  return zones;
}

class Planner {
 public:
  explicit Planner(const AssignmentTask& task)
      : table_(task.nodes, task.rows, task.replicas, ZoneLimit(ZonesOf(task.nodes), task.replicas)),
        formers_(task.formers) {
    for (size_t node = 0; node < task.nodes.size(); ++node) {
      if (task.nodes[node].takes) takers_.push_back(static_cast<Owner>(node));
      zones_ = std::max(zones_, task.nodes[node].zone + 1);
    }
    for (size_t at = 0; at < task.rows.size(); ++at) {
      if (task.unfilled[at] != 0) unfilled_[static_cast<Partition>(at / task.replicas)].push_back(task.rows[at]);
    }
  }

  std::vector<Owner> Run() && {
    MendZones();
    SetNeeds();
    FillHoles();
    for (const Partition partition : RowsWithHoles()) {
      while (Missing(partition) > 0 && FindChain(partition)) {
      }
    }
    LevelOut();
    FillLastHoles();
    LevelOut();
    return table_.Sorted();
  }

 private:
  bool Takes(Owner node) const { return node != kNobody && table_.nodes()[node].takes; }

  bool IsUnfilled(Partition partition, Owner node) const {
    const auto at = unfilled_.find(partition);
    return at != unfilled_.end() && std::find(at->second.begin(), at->second.end(), node) != at->second.end();
  }

  bool IsFormer(Partition partition, Owner node) const {
    const auto at = formers_.find(partition);
    return at != formers_.end() && std::find(at->second.begin(), at->second.end(), node) != at->second.end();
  }

  // Owners that only keep what they have.
  uint32_t Keepers(Partition partition) const {
    uint32_t keepers = 0;
    for (const Owner owner : table_.Row(partition)) keepers += owner != kNobody && !Takes(owner) ? 1 : 0;
    return keepers;
  }

  uint32_t Wanted(Partition partition) const {
    return std::min(table_.replicas(), Keepers(partition) + static_cast<uint32_t>(takers_.size()));
  }

  uint32_t Missing(Partition partition) const {
    uint32_t owners = 0;
    for (const Owner owner : table_.Row(partition)) owners += owner != kNobody ? 1 : 0;
    const uint32_t wanted = Wanted(partition);
    return wanted > owners ? wanted - owners : 0;
  }

  std::vector<Partition> RowsWithHoles() const {
    std::vector<Partition> rows;
    for (Partition partition = 0; partition < table_.partitions(); ++partition) {
      if (Missing(partition) > 0) rows.push_back(partition);
    }
    return rows;
  }

  // Step 1.
  void MendZones() {
    for (Partition partition = 0; partition < table_.partitions(); ++partition) {
      while (const std::optional<uint32_t> place = PlaceInOverfullZone(partition)) {
        table_.Set(partition, *place, kNobody);
      }
    }
  }

  // Who should go from a row that has too many owners in one zone; nobody when nobody else could come.
  std::optional<uint32_t> PlaceInOverfullZone(Partition partition) const {
    const std::span<const Owner> row = table_.Row(partition);
    const uint64_t hash = ThingHash(partition);
    std::optional<uint32_t> worst;
    std::tuple<bool, RowTable::Rank> worst_rank;
    for (uint32_t place = 0; place < row.size(); ++place) {
      if (!Takes(row[place]) || table_.InZone(partition, table_.nodes()[row[place]].zone) <= table_.zone_limit()) {
        continue;
      }
      const std::tuple rank(IsUnfilled(partition, row[place]), table_.RankOf(hash, row[place]));
      if (!worst || rank > worst_rank) {
        worst = place;
        worst_rank = rank;
      }
    }
    if (worst && std::none_of(takers_.begin(), takers_.end(),
                              [&](Owner node) { return table_.MayOwn(partition, *worst, node); })) {
      return std::nullopt;
    }
    return worst;
  }

  void SetNeeds() {
    QuotaTask quotas;
    quotas.zone_caps.assign(zones_, uint64_t{table_.zone_limit()} * table_.partitions());
    for (Partition partition = 0; partition < table_.partitions(); ++partition) {
      const uint32_t open = Wanted(partition) - Keepers(partition);
      quotas.total += open;
      quotas.node_cap += open > 0 ? 1 : 0;
      for (const Owner owner : table_.Row(partition)) {
        if (owner == kNobody || Takes(owner)) continue;
        uint64_t& cap = quotas.zone_caps[table_.nodes()[owner].zone];
        cap -= std::min<uint64_t>(cap, 1);
      }
    }
    for (const Owner node : takers_) {
      const Assignee& assignee = table_.nodes()[node];
      quotas.nodes.push_back({.weight = assignee.weight,
                              .zone = assignee.zone,
                              .held = static_cast<uint32_t>(table_.RowsOf(node).size())});
    }
    const std::vector<uint32_t> quota = Quotas(quotas);
    needs_.assign(table_.nodes().size(), 0);
    for (size_t i = 0; i < takers_.size(); ++i) {
      needs_[takers_[i]] = static_cast<int64_t>(quota[i]) - static_cast<int64_t>(table_.RowsOf(takers_[i]).size());
    }
  }

  void Give(Partition partition, uint32_t place, Owner node) {
    const Owner before = table_.Row(partition)[place];
    if (before != kNobody) ++needs_[before];
    --needs_[node];
    table_.Set(partition, place, node);
  }

  uint32_t HoleOf(Partition partition) const { return table_.PlaceOf(partition, kNobody); }

  // How many of a row's holes nodes of a zone can take: in zones that the row is not in yet, and in one of its zones.
  uint32_t RoomElsewhere(Partition partition) const { return std::min(table_.zone_limit(), Missing(partition)); }
  uint32_t RoomIn(Partition partition, uint32_t zone) const {
    const uint32_t there = table_.InZone(partition, zone);
    return std::min(table_.zone_limit() > there ? table_.zone_limit() - there : 0, Missing(partition));
  }

  // Calls `visit(zone, room)` for each zone that the row is in, with how much less room it has there than elsewhere.
  template <typename Visit>
  void ForZonesOf(Partition partition, Visit visit) const {
    const std::span<const Owner> row = table_.Row(partition);
    for (size_t i = 0; i < row.size(); ++i) {
      if (row[i] == kNobody) continue;
      const uint32_t zone = table_.nodes()[row[i]].zone;
      const bool visited = std::any_of(row.begin(), row.begin() + static_cast<std::ptrdiff_t>(i), [&](Owner owner) {
        return owner != kNobody && table_.nodes()[owner].zone == zone;
      });
      if (!visited) visit(zone, RoomElsewhere(partition) - RoomIn(partition, zone));
    }
  }

  // Step 2. Where what is missing is all that nodes need, some rows are the last chance of a node or a zone: in a
  // cluster of three zones of which one has half of the weight, say, every row needs a node of that zone. Those go
  // first, so that no row is left for which only the wrong nodes remain.
  void FillHoles() {
    const std::vector<Partition> rows = RowsWithHoles();
    std::vector<Owner> needy;
    std::vector<int64_t> zone_needs(zones_);
    int64_t needed = 0;
    for (const Owner node : takers_) {
      if (needs_[node] <= 0) continue;
      needy.push_back(node);
      needed += needs_[node];
      zone_needs[table_.nodes()[node].zone] += needs_[node];
    }
    // Of the rows to come: what a zone that is in none of them can take, and how much less the others can.
    int64_t room = 0;
    std::vector<int64_t> less_room(zones_);
    int64_t missing = 0;
    for (const Partition partition : rows) {
      missing += Missing(partition);
      room += RoomElsewhere(partition);
      ForZonesOf(partition, [&](uint32_t zone, int64_t less) { less_room[zone] += less; });
    }
    const bool exact = needed == missing;

    auto rows_left = static_cast<int64_t>(rows.size());
    for (const Partition partition : rows) {
      room -= RoomElsewhere(partition);
      ForZonesOf(partition, [&](uint32_t zone, int64_t less) { less_room[zone] -= less; });
      const uint64_t hash = ThingHash(partition);
      for (uint32_t missing_here = Missing(partition); missing_here > 0; --missing_here) {
        const uint32_t place = HoleOf(partition);
        Owner best = kNobody;
        std::tuple<bool, bool, bool, RowTable::Rank> best_rank;
        for (const Owner node : needy) {
          const uint32_t zone = table_.nodes()[node].zone;
          const bool last_of_node = exact && needs_[node] >= rows_left;
          const bool last_of_zone = exact && zone_needs[zone] > room - less_room[zone];
          const std::tuple rank(!last_of_node, !last_of_zone, !IsFormer(partition, node), table_.RankOf(hash, node));
          if (best != kNobody && rank > best_rank) continue;
          if (!table_.MayOwn(partition, place, node)) continue;
          best = node;
          best_rank = rank;
        }
        if (best == kNobody) break;
        Give(partition, place, best);
        --zone_needs[table_.nodes()[best].zone];
        if (needs_[best] == 0) needy.erase(std::find(needy.begin(), needy.end(), best));
      }
      --rows_left;
    }
  }

  // Steps 3 and 4.
  void LevelOut() {
    TakeFromOverfull();
    for (const Owner node : takers_) {
      while (needs_[node] < 0 && FindChainFrom(node)) {
      }
    }
  }

  void TakeFromOverfull() {
    for (const Owner taker : takers_) {
      if (needs_[taker] > 0) TakeFromOverfull(taker);
    }
  }

  struct Offer {
    uint8_t cost = 0;  // 0: the taker has the chunks; 1: the giver does not have them yet; 2: they have to be moved
    RowTable::Rank taker;
    RowTable::Rank giver;
    Partition partition = 0;
    Owner from = kNobody;

    bool operator<(const Offer& other) const {
      return std::tie(cost, taker, other.giver) < std::tie(other.cost, other.taker, giver);
    }
  };

  void TakeFromOverfull(Owner taker) {
    std::vector<Offer> offers;
    for (const Owner giver : takers_) {
      if (needs_[giver] >= 0) continue;
      for (const Partition partition : table_.RowsOf(giver)) {
        if (!table_.MayOwn(partition, table_.PlaceOf(partition, giver), taker)) continue;
        const uint64_t hash = ThingHash(partition);
        uint8_t cost = 2;
        if (IsFormer(partition, taker)) {
          cost = 0;
        } else if (IsUnfilled(partition, giver)) {
          cost = 1;
        }
        offers.push_back({.cost = cost,
                          .taker = table_.RankOf(hash, taker),
                          .giver = table_.RankOf(hash, giver),
                          .partition = partition,
                          .from = giver});
      }
    }
    // Mostly a few of many are taken: the best are sorted first.
    const auto end = offers.end();
    auto sorted = offers.begin();
    for (auto offer = offers.begin(); offer != end && needs_[taker] > 0; ++offer) {
      if (offer == sorted) {
        const auto chunk = std::min<std::ptrdiff_t>(end - sorted, 4 * needs_[taker] + 32);
        std::nth_element(sorted, sorted + chunk - 1, end);
        std::sort(sorted, sorted + chunk);
        sorted += chunk;
      }
      if (needs_[offer->from] >= 0) continue;
      const uint32_t place = table_.PlaceOf(offer->partition, offer->from);
      if (table_.MayOwn(offer->partition, place, taker)) Give(offer->partition, place, taker);
    }
  }

  // Step 4: breadth-first over nodes. `node` would take the place of `previous` in a row.
  struct Link {
    Owner node = kNobody;
    size_t previous = 0;  // index of a Link; its own: the first
    Partition partition = 0;
    uint32_t place = kNoPlace;  // kNoPlace: the first node gives up a row, and takes none
  };

  bool FindChain(Partition partition) {
    const uint32_t place = HoleOf(partition);
    std::vector<Link> links;
    for (const Owner node : takers_) {
      if (table_.MayOwn(partition, place, node)) {
        links.push_back({.node = node, .previous = links.size(), .partition = partition, .place = place});
      }
    }
    return Follow(std::move(links));
  }

  bool FindChainFrom(Owner node) { return Follow({{.node = node}}); }

  bool Follow(std::vector<Link> links) {
    std::vector<bool> seen(table_.nodes().size());
    for (const Link& link : links) seen[link.node] = true;
    std::vector<Owner> unseen;
    for (const Owner node : takers_) {
      if (!seen[node]) unseen.push_back(node);
    }
    for (const Link& link : links) {
      if (needs_[link.node] > 0) {
        Apply(links, static_cast<size_t>(&link - links.data()));
        return true;
      }
    }
    for (size_t at = 0; at < links.size() && !unseen.empty(); ++at) {
      if (Extend(links, at, unseen)) {
        Apply(links, links.size() - 1);
        return true;
      }
    }
    return false;
  }

  // Adds who could take a row from the node of links[at]; true when the last one added needs one. The rows gained last
  // are tried first: what was gained in this run can be given up without moving anything.
  bool Extend(std::vector<Link>& links, size_t at, std::vector<Owner>& unseen) {
    const Owner giver = links[at].node;
    const std::span<const Partition> rows = table_.RowsOf(giver);
    for (const bool needy : {true, false}) {
      for (auto row = rows.rbegin(); row != rows.rend(); ++row) {
        if (IsInChain(links, at, *row)) continue;
        const uint32_t place = table_.PlaceOf(*row, giver);
        for (size_t i = 0; i < unseen.size();) {
          const Owner taker = unseen[i];
          if ((needs_[taker] > 0) != needy || !table_.MayOwn(*row, place, taker)) {
            ++i;
            continue;
          }
          links.push_back({.node = taker, .previous = at, .partition = *row, .place = place});
          if (needy) return true;
          unseen[i] = unseen.back();
          unseen.pop_back();
        }
      }
    }
    return false;
  }

  // A row changes once in a chain, as it was looked at as it is now.
  static bool IsInChain(const std::vector<Link>& links, size_t at, Partition partition) {
    while (true) {
      if (links[at].place != kNoPlace && links[at].partition == partition) return true;
      if (links[at].previous == at) return false;
      at = links[at].previous;
    }
  }

  void Apply(const std::vector<Link>& links, size_t at) {
    while (links[at].place != kNoPlace) {
      Give(links[at].partition, links[at].place, links[at].node);
      if (links[at].previous == at) break;
      at = links[at].previous;
    }
  }

  // Step 5.
  void FillLastHoles() {
    for (const Partition partition : RowsWithHoles()) {
      const uint64_t hash = ThingHash(partition);
      while (Missing(partition) > 0) {
        const uint32_t place = HoleOf(partition);
        Owner best = kNobody;
        std::tuple<bool, int64_t, RowTable::Rank> best_rank;
        for (const Owner node : takers_) {
          if (!table_.IsFree(partition, node)) continue;
          const std::tuple rank(!table_.MayOwn(partition, place, node), -needs_[node], table_.RankOf(hash, node));
          if (best != kNobody && rank > best_rank) continue;
          best = node;
          best_rank = rank;
        }
        if (best == kNobody) break;
        Give(partition, place, best);
      }
    }
  }

  RowTable table_;
  const std::map<Partition, std::vector<Owner>>& formers_;
  std::map<Partition, std::vector<Owner>> unfilled_;
  std::vector<Owner> takers_;
  uint32_t zones_ = 0;
  std::vector<int64_t> needs_;  // rows to its quota; negative: it has more
};

}  // namespace

std::vector<Owner> Assign(const AssignmentTask& task) { return Planner(task).Run(); }

}  // namespace kdn
