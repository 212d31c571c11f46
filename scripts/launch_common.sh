# What the launchers share; sourced by them. Written for bash 3.2 (macOS) and newer, so: no `wait -n`,
# no associative arrays, and no "${empty[@]}" under `set -u`.
# shellcheck shell=bash

me=$(basename "$0" .sh)
# shellcheck disable=SC2034  # the launchers read it
repository=$(CDPATH="" cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dry_run=""
flags=()  # every --..._flag=VALUE, in order: options of the underlying tool, passed on as they are
rest=()   # what follows --: the switchx command line

fail() {
  printf '%s: %s\n' "$me" "$*" >&2
  exit 2
}

# The header comment of a launcher is its help.
usage() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

# quote WORD...: the words, joined, as any POSIX shell reads them back. Not printf %q: its $'...' is
# bash's alone, and SLURM and Kubernetes hand our commands to sh.
quote() {
  local word separator="" apostrophe="'\\''"
  for word in "$@"; do
    printf '%s' "$separator"
    if [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then
      printf '%s' "$word"
    else
      printf "'%s'" "${word//\'/$apostrophe}"
    fi
    separator=" "
  done
}

# run COMMAND...: the one way anything is executed, so that a dry run prints exactly what a run does.
run() {
  if [[ -n $dry_run ]]; then
    quote "$@"
    echo
  else
    "$@"
  fi
}

# need TOOL WHERE: a real run without the tool ends here; a dry run needs none.
need() {
  [[ -n $dry_run ]] || command -v "$1" >/dev/null ||
    fail "$1 not found; install it ($2), or print the commands with --dry_run"
}

# parse "SETTINGS" "SWITCHES" ARGUMENT...: sets the variable of each --setting=value (or --setting
# value) and --switch, flags and rest; --dry-run is --dry_run. Its own variables must not have the
# name of a launcher's option.
parse() {
  local settings=" $1 " switches=" $2 dry_run " argument option value
  shift 2
  while (($#)); do
    argument=$1
    shift
    option=${argument%%=*}
    option=${option#--}
    option=${option//-/_}
    case $argument in
      --) rest=("$@"); break ;;
      -h | --help) usage; exit 0 ;;
      --*) ;;
      *) fail "did not expect '$argument'; options start with --, a switchx command follows a lone --" ;;
    esac
    if [[ $switches == *" $option "* ]]; then
      [[ $argument != *=* ]] || fail "--$option takes no value, got '${argument#*=}'"
      printf -v "$option" yes
    elif [[ $settings == *" $option "* ]]; then
      if [[ $argument == *=* ]]; then
        value=${argument#*=}
      elif (($#)) && [[ $1 != --* ]]; then
        value=$1
        shift
      else
        value=""
      fi
      [[ -n $value ]] || fail "--$option needs a value, as in --$option=VALUE"
      if [[ $option == *_flag ]]; then flags+=("$value"); else printf -v "$option" %s "$value"; fi
    else
      fail "unknown option '$argument'; accepted here:$(options "$settings$switches")"
    fi
  done
}

options() {
  local option
  for option in $1; do printf ' --%s' "$option"; done
}

# require NAME WHAT: the setting NAME has a value.
require() {
  [[ -n ${!1} ]] || fail "--$1 is missing: $2"
}

# require_number NAME LEAST
require_number() {
  if [[ ! ${!1} =~ ^[0-9]{1,9}$ ]] || ((10#${!1} < $2)); then
    fail "--$1=${!1} is not a whole number of at least $2"
  fi
}

# require_name NAME: what clouds and Kubernetes take as a name.
require_name() {
  [[ ${!1} =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
    fail "--$1=${!1} is not a name: lower-case letters, digits and hyphens, a letter first"
}

# require_bucket NAME: what Cloud Storage takes as one.
require_bucket() {
  [[ ${!1} =~ ^[a-z0-9][-a-z0-9._]+[a-z0-9]$ ]] || fail "--$1=${!1} is not a bucket's name; leave out gs://"
}

# require_switchx_command: rest holds a switchx command line that one line of shell can carry.
require_switchx_command() {
  local argument
  ((${#rest[@]})) || fail "the switchx command is missing: -- train --gin_file=... --model_dir=..."
  [[ ${rest[0]} == [a-z]* ]] ||
    fail "after -- comes a switchx command such as train or eval, not '${rest[0]}'"
  for argument in "${rest[@]}"; do
    [[ $argument != *$'\n'* ]] ||
      fail "an argument holds a line break, which does not survive the way to the hosts: $(quote "$argument" | head -n 1)..."
  done
}

# job_secret: what the processes of one job know each other by (switchx/hosts/secret.py): that of the
# environment, or a random one.
job_secret() {
  echo "${SWITCHX_JOB_SECRET:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}"
}

# at_most_one NAME...: settings or switches that exclude each other.
at_most_one() {
  local option given=""
  for option in "$@"; do
    [[ -z ${!option} ]] || given="$given --$option"
  done
  [[ $given != *" --"*" --"* ]] || fail "only one of these can be set:$given"
}
