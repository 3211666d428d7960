// PageAssets: the files of the web page, compiled in by embed_assets.cmake.
//
// Thread-safety: pure functions.
#ifndef KDN_PLACEMENT_WEB_PAGE_ASSETS_H_
#define KDN_PLACEMENT_WEB_PAGE_ASSETS_H_

#include <cstddef>
#include <string_view>
#include <vector>

namespace kdn {

struct PageAsset {
  std::string_view name;  // as in "index.html"
  std::string_view content;
};
const std::vector<PageAsset>& PageAssets();

}  // namespace kdn

#endif  // KDN_PLACEMENT_WEB_PAGE_ASSETS_H_
