# Words that all scripts of the guest use.
export PATH=/sbin:/bin
STATE=/run/guest                        # one small file for each thing known
say() { echo "@@ $*" > /dev/console; }
put() { echo "$2" > "$STATE/$1"; }
get() { cat "$STATE/$1" 2>/dev/null; }
arg() { for w in $(cat /proc/cmdline); do case $w in "$1"=*) echo "${w#*=}";; "$1") echo 1;; esac; done; }
