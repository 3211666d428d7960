#include <array>
#include <span>

#include "kdn-client/ctl/command.h"
#include "kdn-client/ctl/commands/declare.h"

namespace kdn::ctl {
namespace {

constexpr const char* kLook = "Look";
constexpr const char* kCluster = "Cluster";
constexpr const char* kChunks = "Chunks";
constexpr const char* kTraces = "Traces and analytics";
constexpr const char* kBlend = "Blending";
constexpr const char* kShell = "Shell";

constexpr std::array kCommands = {
    Command{"status", kLook, "One node, or a cluster at a glance", DeclareStatus},
    Command{"top", kLook, "What nodes do at this moment, drawn again and again", DeclareTop},
    Command{"events", kLook, "Follow what changes in a cluster", DeclareEvents},
    Command{"doctor", kLook, "Check a deployment, and say what to mend", DeclareDoctor},
    Command{"bench", kLook, "How fast chunks are stored, found and delivered, from here", DeclareBench},
    Command{"nodes", kCluster, "The nodes of a cluster: state, share, load", DeclareNodes},
    Command{"topology", kCluster, "Epoch, owners and moves of a cluster's partitions", DeclareTopology},
    Command{"drain", kCluster, "Move everything off a node, and wait for it", DeclareDrain},
    Command{"forget", kCluster, "Take a node that is gone out of the cluster", DeclareForget},
    Command{"weight", kCluster, "Change a node's share of the partitions", DeclareWeight},
    Command{"rebalance", kCluster, "How even the shares are; weights by capacity", DeclareRebalance},
    Command{"spaces", kChunks, "The spaces whose chunks are held, and what they take", DeclareSpaces},
    Command{"lookup", kChunks, "Which chunks are held: by key, or of documents", DeclareLookup},
    Command{"why", kChunks, "Where a chunk is, or why it, or the rest of a document, is nowhere", DeclareWhy},
    Command{"get", kChunks, "Chunks into an archive", DeclareGet},
    Command{"put", kChunks, "The chunks of an archive to a node or cluster", DeclarePut},
    Command{"export", kChunks, "All chunks, or those of a space or chain, into an archive", DeclareExport},
    Command{"import", kChunks, "What of an archive is not held yet; go on after a break", DeclareImport},
    Command{"pin", kChunks, "Keep chunks from being evicted, for a time", DeclarePin},
    Command{"unpin", kChunks, "End such a lease early", DeclareUnpin},
    Command{"warm", kChunks, "Bring chunks from disks to memory", DeclareWarm},
    Command{"verify", kChunks, "Read and check all that nodes hold", DeclareVerify},
    Command{"delete", kChunks, "Erase chunks", DeclareDelete},
    Command{"clear", kChunks, "Erase a space's chunks, or those of a chain", DeclareClear},
    Command{"analytics", kTraces, "Hit ratios, why requests missed, what more memory would hit", DeclareAnalytics},
    Command{"replay", kTraces, "A trace through the simulator, or against a live cluster", DeclareReplay},
    Command{"blend", kBlend, "Profiles by which engines blend prompts of several documents", DeclareBlend},
    Command{"completion", kShell, "Print the completion script of a shell", DeclareCompletion},
};

}  // namespace

std::span<const Command> Commands() { return kCommands; }

}  // namespace kdn::ctl
