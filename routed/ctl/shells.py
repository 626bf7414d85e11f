"""What shells are told, so that they ask us (`routed.ctl.completion`) what may come next."""

from __future__ import annotations

BASH = r"""# bash completion of routectl: source <(routectl completion bash)
_routectl() {
    local line=${COMP_LINE-${COMP_WORDS[*]:0:COMP_CWORD+1}} word answer directive before
    line=${line:0:${COMP_POINT-${#line}}}
    local -a words=()
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${words[-1]}
    # readline breaks words at these, and replaces the last part alone
    before=${word%"${word##*[=:]}"}
    [[ $COMP_WORDBREAKS == *[=:]* ]] || before=""
    COMPREPLY=()
    while IFS= read -r answer; do
        directive=$answer
        answer=${answer%%$'\t'*}
        [[ $answer == :[0-9] ]] || COMPREPLY+=("${answer#"$before"}")
    done < <(routectl __complete "${words[@]:1}" 2> /dev/null)
    [[ $directive == :0 ]] && compopt -o default 2> /dev/null
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=/] ]] && compopt -o nospace 2> /dev/null
    return 0
}
complete -F _routectl routectl kubectl-routed
"""
ZSH = r"""#compdef routectl kubectl-routed
# zsh completion of routectl: source <(routectl completion zsh)
_routectl() {
    local -a lines found
    local line meaning
    lines=("${(@f)$(routectl __complete "${(@)words[2,CURRENT]}" 2> /dev/null)}")
    for line in "${(@)lines}"; do
        [[ $line == :[0-9] ]] && continue
        meaning=${line#*$'\t'}
        [[ $meaning == $line ]] && meaning=""
        found+=("${${line%%$'\t'*}//:/\\:}${meaning:+:$meaning}")
    done
    [[ ${lines[-1]} == :0 ]] && _files && return
    _describe routectl found
}
if [[ ${funcstack[1]} == _routectl ]]; then
    _routectl "$@"
else
    compdef _routectl routectl kubectl-routed
fi
"""
FISH = r"""# fish completion of routectl: routectl completion fish | source
function __routectl_complete
    set -l words (commandline --tokenize --cut-at-cursor --current-process)[2..-1]
    set -l current (commandline --current-token --cut-at-cursor)
    set -l lines (routectl __complete $words "$current" 2> /dev/null)
    if test "$lines[-1]" = :0
        __fish_complete_path "$current"
    else
        printf '%s\n' $lines | string match --invert --regex '^:\d$'
    end
end
complete --command routectl --no-files --arguments '(__routectl_complete)'
complete --command kubectl-routed --no-files --arguments '(__routectl_complete)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
