# Debian packages: `cpack -G DEB` in the build folder makes one of each component, in packages/.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME kdn)
set(CPACK_PACKAGE_VENDOR KDN)
set(CPACK_PACKAGE_CONTACT ${KDN_PACKAGE_MAINTAINER})
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_OUTPUT_FILE_PREFIX packages)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL kdn-node kdn-placement kdn-engine kdn-client-dev)
if(TARGET kdnctl)
  list(APPEND CPACK_COMPONENTS_ALL kdnctl)
endif()
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
    OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE ${KDN_PACKAGE_RELEASE})
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)

# kdn_deb(COMPONENT SECTION DEPENDS SUMMARY DESCRIPTION): a package's control fields. Libraries that its programs are
# linked to are added to DEPENDS by dpkg-shlibdeps.
macro(kdn_deb component section depends summary description)
  string(TOUPPER ${component} upper)
  set(CPACK_DEBIAN_${upper}_PACKAGE_NAME ${component})
  set(CPACK_DEBIAN_${upper}_PACKAGE_SECTION ${section})
  set(CPACK_DEBIAN_${upper}_PACKAGE_PRIORITY optional)
  set(CPACK_DEBIAN_${upper}_PACKAGE_DEPENDS "${depends}")
  set(CPACK_DEBIAN_${upper}_DESCRIPTION "${summary}\n${description}")
  if(EXISTS ${CMAKE_CURRENT_BINARY_DIR}/debian/${component}/postinst)
    set(CPACK_DEBIAN_${upper}_PACKAGE_CONTROL_EXTRA)
    foreach(file postinst prerm postrm conffiles)
      list(APPEND CPACK_DEBIAN_${upper}_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_BINARY_DIR}/debian/${component}/${file})
    endforeach()
  endif()
endmacro()

set(what "KDN stores the KV cache of text that a large language model has prefilled,
and delivers it to any engine that meets the text again.")
kdn_deb(kdn-node net "adduser, init-system-helpers (>= 1.52)"
        "KV-cache delivery network: the daemon that stores and delivers"
        "${what}
.
This package has kdn-node: a memory tier, disk tiers, and the protocols by
which engines fetch and store. It serves on loopback until told otherwise.")
kdn_deb(kdn-placement net "adduser, init-system-helpers (>= 1.52)"
        "KV-cache delivery network: the daemon that places chunks on nodes"
        "${what}
.
This package has kdn-placement: it says which node of a cluster holds what,
by a registry of its own or by etcd.")
set(CPACK_DEBIAN_KDN-PLACEMENT_PACKAGE_SUGGESTS "etcd-server")
kdn_deb(kdnctl net "" "KV-cache delivery network: the operator's command line"
        "${what}
.
This package has kdnctl, by which operators look at a cluster and change it.")
kdn_deb(kdn-engine science "" "KV-cache delivery network: a small engine to try it with"
        "${what}
.
This package has kdn-engine, the reference engine: it runs small models of the
Llama family, or ones with random weights, and keeps their KV cache on KDN; and
kdn-calibrate, which finds how a model's prompts are blended.")
kdn_deb(kdn-client-dev libdevel "${KDN_CLIENT_DEV_DEPENDS}"
        "KV-cache delivery network: the library that engines link"
        "${what}
.
This package has the client as a static library, its headers, and what CMake
and pkg-config need to find it.")

include(CPack)
