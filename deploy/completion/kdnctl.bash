# Bash completion of kdnctl; made by `kdnctl completion bash`.
_kdnctl() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= flags= word
  COMPREPLY=()
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case $word in status|top|events|doctor|bench|nodes|topology|drain|forget|weight|rebalance|spaces|lookup|why|get|put|export|import|pin|unpin|warm|verify|delete|clear|analytics|replay|blend|completion) command=$word; break ;; esac
  done
  case $prev in
    --node) return ;;
    --placement) return ;;
    --output|-o) COMPREPLY=($(compgen -W "table json" -- "$cur")); return ;;
    --deadline) return ;;
    --trace-parent) return ;;
    --interval) return ;;
    --count) return ;;
    --chunks) return ;;
    --chunk-bytes) return ;;
    --threads) return ;;
    --ack) COMPREPLY=($(compgen -W "memory durable" -- "$cur")); return ;;
    --codec) COMPREPLY=($(compgen -W "raw zstd q8 q4 cachegen" -- "$cur")); return ;;
    --timeout) return ;;
    --default) return ;;
    --tokens) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    --text) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    --space) return ;;
    --chunk-tokens) return ;;
    --file|-f) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    --ttl) return ;;
    --under) return ;;
    --for) return ;;
    --state) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    --tier) COMPREPLY=($(compgen -W "memory disk disk-2 disk-3" -- "$cur")); return ;;
    --model) return ;;
    --tenant) return ;;
    --prefixes) return ;;
    --duration) return ;;
    --requests) return ;;
    --sample) return ;;
    --window) return ;;
    --memory) return ;;
    --disk) return ;;
    --token-bytes) return ;;
    --policy) COMPREPLY=($(compgen -W "lru s3fifo wtinylfu gdsf prefix" -- "$cur")); return ;;
    --prefill-rate) return ;;
    --speed) return ;;
    --engine) return ;;
    --out) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    --layers) return ;;
    --documents) return ;;
    --question) return ;;
    --prefill) return ;;
    --from) return ;;
    --latency) return ;;
  esac
  case $command in
    status) flags="--help -h" ;;
    top) flags="--help -h --interval --count" ;;
    events) flags="--help -h --count" ;;
    doctor) flags="--help -h --strict --all" ;;
    bench) flags="--help -h --chunks --chunk-bytes --threads --ack --codec" ;;
    nodes) flags="--help -h" ;;
    topology) flags="--help -h --partitions" ;;
    drain) flags="--help -h --undo --no-wait --timeout" ;;
    forget) flags="--help -h --force" ;;
    weight) flags="--help -h --no-wait --timeout" ;;
    rebalance) flags="--help -h --by-capacity --no-wait --timeout" ;;
    spaces) flags="--help -h --default" ;;
    lookup) flags="--help -h --tokens --text --bos --space --chunk-tokens" ;;
    why) flags="--help -h --tokens --text --bos --space --chunk-tokens" ;;
    get) flags="--help -h --file -f --overwrite" ;;
    put) flags="--help -h --ack --ttl" ;;
    export) flags="--help -h --space --under --overwrite" ;;
    import) flags="--help -h --ack --ttl --no-check" ;;
    pin) flags="--help -h --tokens --text --bos --space --chunk-tokens --for" ;;
    unpin) flags="--help -h" ;;
    warm) flags="--help -h --tokens --text --bos --space --chunk-tokens --state --timeout" ;;
    verify) flags="--help -h --tier" ;;
    delete) flags="--help -h --tokens --text --bos --space --chunk-tokens" ;;
    clear) flags="--help -h --space --under" ;;
    analytics) flags="--help -h --space --model --tenant --prefixes --duration --requests --sample --window" ;;
    replay) flags="--help -h --memory --disk --token-bytes --policy --prefill-rate --live --speed --threads --chunk-bytes --requests" ;;
    blend) flags="--help -h --space --engine --out --layers --token-bytes --documents --question --prefill --from --latency" ;;
    completion) flags="--help -h" ;;
  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$flags --version --help -h --node --placement --output -o --deadline --trace-parent --yes -y" -- "$cur"))
    return
  fi
  case $command in
    '') COMPREPLY=($(compgen -W "status top events doctor bench nodes topology drain forget weight rebalance spaces lookup why get put export import pin unpin warm verify delete clear analytics replay blend completion" -- "$cur")) ;;
    spaces) [[ $prev == spaces ]] && COMPREPLY=($(compgen -W "quota" -- "$cur")) || COMPREPLY=($(compgen -f -- "$cur")) ;;
    put) COMPREPLY=($(compgen -f -- "$cur")) ;;
    export) COMPREPLY=($(compgen -f -- "$cur")) ;;
    import) COMPREPLY=($(compgen -f -- "$cur")) ;;
    analytics) [[ $prev == analytics ]] && COMPREPLY=($(compgen -W "record" -- "$cur")) || COMPREPLY=($(compgen -f -- "$cur")) ;;
    replay) COMPREPLY=($(compgen -f -- "$cur")) ;;
    blend) [[ $prev == blend ]] && COMPREPLY=($(compgen -W "show calibrate tier" -- "$cur")) || COMPREPLY=($(compgen -f -- "$cur")) ;;
    completion) COMPREPLY=($(compgen -W "bash zsh man" -- "$cur")) ;;
  esac
}
complete -F _kdnctl kdnctl
