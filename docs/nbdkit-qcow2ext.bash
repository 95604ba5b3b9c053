# Bash completion of the parameters of nbdkit's filter qcow2ext.
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash disable=SC2207
#
# bash-completion loads one file for a command, by the command's name, and for
# nbdkit that is nbdkit's own.  It knows the filters' names and the plugins'
# parameters, but no filter's.  So this file is read when a shell starts, and
# puts a function before nbdkit's own, which answers first.
#
# The parameters and what they take come from nbdkit --help.

# _nbdkit_qcow2ext_parameters FILTER: a line KEY=SYNTAX for each parameter.
_nbdkit_qcow2ext_parameters ()
{
    nbdkit --help --filter="$1" null 2>/dev/null |
        sed -n 's/^\(qcow2ext-[a-z0-9-]*=[^ ]*\).*/\1/p'
}

# _nbdkit_qcow2ext_value KEY SYNTAX: what may follow KEY=, given in $cur.
# SYNTAX is <FILE>, <DIR>, <BOOL>, another <THING>, words to be typed as they
# are, or some of these with | between them.
_nbdkit_qcow2ext_value ()
{
    local alternative words=''
    local -a alternatives

    # Files only where they make sense, unlike with nbdkit's own.
    compopt +o default 2>/dev/null
    IFS='|' read -r -a alternatives <<<"$2"
    for alternative in "${alternatives[@]}"; do
        case $alternative in
            '<FILE>') _filedir ;;
            '<DIR>') _filedir -d ;;
            '<BOOL>') words+=" true false" ;;
            '<'*) ;;
            *) words+=" $alternative" ;;
        esac
    done
    COMPREPLY+=( $(compgen -W "$words" -- "$cur") )
    # Where = does not end a word, the word is more than the value.
    if [[ $COMP_WORDBREAKS != *=* ]]; then
        COMPREPLY=( "${COMPREPLY[@]/#/$1=}" )
    fi
}

_nbdkit_qcow2ext ()
{
    local cur prev words cword
    local i filter='' plugin='' parameters line

    # nbdkit's own, the first time; loading it registers it.
    if [ -z "$_nbdkit_qcow2ext_own" ]; then
        if declare -F _comp_load >/dev/null; then
            _comp_load nbdkit
        else
            __load_completion nbdkit
        fi
        _nbdkit_qcow2ext_own=none
        if [[ $(complete -p nbdkit 2>/dev/null) =~ \ -F\ ([^ ]+) &&
              ${BASH_REMATCH[1]} != _nbdkit_qcow2ext ]]; then
            _nbdkit_qcow2ext_own=${BASH_REMATCH[1]}
        fi
        complete -o default -F _nbdkit_qcow2ext nbdkit
    fi

    _init_completion -n = || return
    for (( i = 1; i < ${#words[@]}; i++ )); do
        line=${words[i]}
        if [ "${words[i-1]}" = --filter ]; then
            line=--filter=$line
        fi
        case $line in
            --filter=qcow2ext | --filter=*nbdkit-qcow2ext-filter.so)
                filter=${line#--filter=} ;;
            -* | '') ;;
            *) [ "$i" -eq "$cword" ] || plugin=$line ;;
        esac
    done

    if [[ -n $filter && $cur == qcow2ext-*=* ]]; then
        while IFS= read -r line; do
            if [ "${line%%=*}" = "${cur%%=*}" ]; then
                cur=${cur#*=}
                _nbdkit_qcow2ext_value "${line%%=*}" "${line#*=}"
                break
            fi
        done < <(_nbdkit_qcow2ext_parameters "$filter")
        return
    fi

    if [ "$_nbdkit_qcow2ext_own" != none ]; then
        "$_nbdkit_qcow2ext_own" "$@"
    fi
    # Parameters follow the plugin's name.
    if [[ -n $filter && -n $plugin && $prev != --filter ]]; then
        parameters=$(_nbdkit_qcow2ext_parameters "$filter" |
                         sed 's/=.*/=/')
        COMPREPLY+=( $(compgen -W "$parameters" -- "$cur") )
        if [ ${#COMPREPLY[@]} -ne 0 ] && [[ ${COMPREPLY[*]/%*=} != *[^\ ]* ]]
        then
            compopt -o nospace 2>/dev/null
        fi
    fi
}

complete -o default -F _nbdkit_qcow2ext nbdkit
