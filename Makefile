# make run    brings the virtual datacenter up in the foreground; Ctrl-C takes it away
# make test   every check, real switch VMs included
# make loom   what threads share, in every order that a weakly ordered machine allows
# make soak   half an hour of traffic and faults, and every frame accounted for; ARGS: seconds
# make deb    target/deb/ikv-fabric_VERSION_ARCHITECTURE.deb, for `apt install` on Debian 12 and 13
# make bench  this build against testpmd, OVS-DPDK, Linux bridge and VDE, as far as they are installed,
#             side by side: bench/RESULTS.md
# make setup  only what needs a network; afterwards the above work without one
# Each step that is done is skipped. Whoever is not root is asked for a password by sudo.

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
BIN := target/release/ikv-fabric
# What tests and benchmarks start besides what the fabric itself needs (`ikv-fabric setup`).
TEST_TOOLS := ip:iproute2 bridge:iproute2 ping:iputils-ping sysctl:procps \
  pasta:passt newuidmap:uidmap dpdk-testpmd:dpdk-dev iperf3:iperf3 tshark:tshark ipmitool:ipmitool ipmi_sim:openipmi \
  libvirtd:libvirt-daemon virsh:libvirt-clients chromium:chromium curl:curl python3:python3-minimal \
  dpkg-shlibdeps:dpkg-dev lintian:lintian mandoc:mandoc man:man-db systemd-analyze:systemd zsh:zsh fish:fish

.PHONY: run setup build deb test loom soak bench fmt clean

run: setup
	$(SUDO) $(BIN) run $(ARGS)

setup: build
	$(SUDO) $(BIN) setup

build: .linker
	cargo build --release --locked --package ikv-fabric

deb: build
	packaging/deb.sh $(BIN) target/deb

# Rust brings no linker of its own, nor libpcap, which compiles capture filters.
.PHONY: .linker .test-tools
.linker:
	@missing=; command -v cc >/dev/null || missing="gcc libc6-dev"; \
	echo '#include <pcap/pcap.h>' | cc -E - >/dev/null 2>&1 || missing="$$missing libpcap-dev"; \
	if [ -n "$$missing" ]; then echo "installing: $$missing"; \
	  $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy --no-install-recommends $$missing; fi

.test-tools:
	@missing=; for tool in $(TEST_TOOLS); do \
	  PATH="$$PATH:/usr/sbin:/sbin" command -v $${tool%%:*} >/dev/null || missing="$$missing $${tool##*:}"; done; \
	[ -e /usr/share/OVMF/OVMF_CODE.fd ] || missing="$$missing ovmf"; \
	ls /usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so >/dev/null 2>&1 || missing="$$missing libvirt-daemon-driver-qemu"; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; \
	  $(SUDO) apt-get update -q && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; fi

# The tests' own build of the program sets up: no need to wait for the released one.
test: .linker .test-tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
	cargo test --workspace --locked --no-run
	$(SUDO) target/debug/ikv-fabric setup
	$(SUDO) env "PATH=$$PATH" cargo test --workspace --locked

# Its own directory: the flag would have all else built anew.
loom: .linker
	RUSTFLAGS="--cfg loom" cargo test --locked --package ikv-dataplane --lib --release --target-dir target/loom -- loom

# The released program, so that it carries what users' fabrics carry.
soak: build .test-tools
	$(SUDO) env "PATH=$$PATH" IKV_FABRIC="$(CURDIR)/$(BIN)" IKV_SOAK_SECONDS="$(or $(ARGS),1800)" \
	  cargo test --release --locked --package ikv-tests --test soak

# ARGS: runs, seconds of each run, and groups (with groups, as in `ARGS="5 4 vhost tcp"`, it writes no file).
bench: build .test-tools
	cargo build --release --locked --package ikv-bench
	$(SUDO) target/release/side-by-side $(BIN) $(ARGS)

fmt:
	cargo fmt --all

clean:
	cargo clean
