// The codecs that this build has, one per file. Code outside this folder finds them by id or name (codec.h).
//
// Thread-safety: singletons without state of their own.
#ifndef KDN_STORAGE_FORMAT_CODECS_H_
#define KDN_STORAGE_FORMAT_CODECS_H_

#include "storage/format/codec.h"

namespace kdn {

const Codec& RawCodec();   // the bytes as they are
const Codec& ZstdCodec();  // lossless; docs/formats.md, "Codec 1: zstd"
const Codec& Q8Codec();    // lossy, as is what follows; "Codecs 2 and 3: q8 and q4"
const Codec& Q4Codec();
const Codec& CacheGenCodec();  // "Codec 4: cachegen"

// INVALID_ARGUMENT unless `shape` is valid and `raw_bytes` is its size. What every codec checks before anything else.
absl::Status CheckRawSize(const SlabShape& shape, uint64_t raw_bytes);

}  // namespace kdn

#endif  // KDN_STORAGE_FORMAT_CODECS_H_
