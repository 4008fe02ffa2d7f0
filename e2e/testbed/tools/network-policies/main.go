// Enforces NetworkPolicies on the node of a cluster for tests. The kernel hands the first packet of each new connection from or to
// a pod to this program (NFQUEUE), and kube-network-policies, whose packages are used here, says whether it may pass.
//
// Its own daemon isn't used: its rules need nftables' own queue statement (CONFIG_NFT_QUEUE), which some kernels lack; the
// NFQUEUE target of iptables, which nftables can use as well, is in more of them. Everything else of it is here.
package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	nriapi "github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"github.com/florianl/go-nfqueue/v2"
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/kube-network-policies/pkg/api"
	"sigs.k8s.io/kube-network-policies/pkg/network"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
	"sigs.k8s.io/kube-network-policies/pkg/podinfo"
)

const (
	// queue is this program's; the network namespace of the node has no other.
	queue = 100
	// patience is how long a packet waits for its sender to become known: a sender repeats its first packet after 1 s.
	patience = 900 * time.Millisecond
	// pause is how often it is looked meanwhile.
	pause = 10 * time.Millisecond
	// headers is how much of a packet is looked at: IP's header with options, and the ports.
	headers = 128
	// waiting is how many packets may wait for an answer before the kernel drops more: thousands of clients connect at once.
	waiting = 16 << 10
	// buffer is what the kernel keeps of them for us, in bytes.
	buffer = 32 << 20
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how the API is reached")
	node := flag.String("node", "", "the node's name")
	pods := flag.String("pods", "", "the addresses of pods, such as 10.180.128.0/20")
	check := flag.Bool("check", false, "only try rules and queue, and leave the rules in this network namespace")
	klog.InitFlags(nil)
	flag.Parse()
	prefix, err := netip.ParsePrefix(*pods)
	if err == nil && *check {
		err = try(prefix)
	} else if err == nil {
		err = run(*kubeconfig, *node, prefix)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "network-policies:", err)
		os.Exit(1)
	}
}

func run(kubeconfig, node string, pods netip.Prefix) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(clients, 0)
	namespaces, podsKnown := factory.Core().V1().Namespaces(), factory.Core().V1().Pods()
	policies := factory.Networking().V1().NetworkPolicies()
	fromAPI, err := podinfo.NewInformerResolver(podsKnown.Informer())
	if err != nil {
		return err
	}
	fromRuntime := &containerRuntime{pods: map[string]string{}}
	go fromRuntime.follow(ctx)
	people := podinfo.NewInformerProvider(podsKnown, namespaces, nil, []podinfo.IPResolver{fromRuntime, fromAPI})
	standard := networkpolicy.NewStandardNetworkPolicy(node, namespaces, podsKnown, policies)
	judge := &judge{pods, people, networkpolicy.NewPolicyEngine(people, []api.PolicyEvaluator{standard})}
	factory.Start(ctx.Done())
	for kind, known := range factory.WaitForCacheSync(ctx.Done()) {
		if !known {
			return fmt.Errorf("%v can't be listed", kind)
		}
	}
	// From here on nothing new passes until the queue has a listener, which is how one sees from outside that policies hold.
	if err := divert(pods); err != nil {
		return fmt.Errorf("the rules: %w", err)
	}
	return judge.listen(ctx)
}

// try says whether the kernel has what is needed.
func try(pods netip.Prefix) error {
	if err := divert(pods); err != nil {
		return fmt.Errorf("the rules: %w", err)
	}
	queue, err := open()
	if err != nil {
		return err
	}
	defer queue.Close()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	if err := queue.RegisterWithErrorFunc(ctx, func(nfqueue.Attribute) int { return 1 }, func(error) int { return 1 }); err != nil {
		return fmt.Errorf("the queue: %w", err)
	}
	return nil
}

// containerRuntime knows whose an address is as soon as it is given, before the pod's containers start. The API knows it a second
// or two later, and keeps it with a pod that has ended although it may be another's by now. (The resolver of kube-network-policies
// gives up when containerd was away ten times.)
type containerRuntime struct {
	mutex sync.Mutex
	pods  map[string]string
}

// follow lets containerd call the functions below, and comes back when containerd does.
func (r *containerRuntime) follow(ctx context.Context) {
	for ctx.Err() == nil {
		plugin, err := stub.New(r, stub.WithPluginName("network-policies"), stub.WithPluginIdx("10"), stub.WithOnClose(func() {}))
		if err == nil {
			err = plugin.Run(ctx)
		}
		klog.InfoS("containerd is away", "error", err)
		time.Sleep(time.Second)
	}
}

func (r *containerRuntime) Synchronize(ctx context.Context, pods []*nriapi.PodSandbox, _ []*nriapi.Container) ([]*nriapi.ContainerUpdate, error) {
	for _, pod := range pods {
		r.RunPodSandbox(ctx, pod)
	}
	return nil, nil
}

func (r *containerRuntime) RunPodSandbox(_ context.Context, pod *nriapi.PodSandbox) error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, address := range pod.GetIps() {
		r.pods[address] = pod.GetNamespace() + "/" + pod.GetName()
	}
	return nil
}

func (r *containerRuntime) RemovePodSandbox(_ context.Context, pod *nriapi.PodSandbox) error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, address := range pod.GetIps() {
		// It may have been given to another since.
		if r.pods[address] == pod.GetNamespace()+"/"+pod.GetName() {
			delete(r.pods, address)
		}
	}
	return nil
}

// LookupPod makes it one of the resolvers.
func (r *containerRuntime) LookupPod(address string) (string, bool) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	pod, known := r.pods[address]
	return pod, known
}

// judge answers for each packet.
type judge struct {
	pods   netip.Prefix
	people api.PodInfoProvider
	engine *networkpolicy.PolicyEngine
}

// open makes the socket; packets come once a function is registered.
func open() (*nfqueue.Nfqueue, error) {
	opened, err := nfqueue.Open(&nfqueue.Config{
		NfQueue:      queue,
		MaxPacketLen: headers,
		MaxQueueLen:  waiting,
		Copymode:     nfqueue.NfQnlCopyPacket,
		// Packets larger than the network's unit come as they are: only their headers are read.
		Flags:        nfqueue.NfQaCfgFlagGSO,
		WriteTimeout: time.Second,
	})
	if err != nil {
		return nil, fmt.Errorf("the queue: %w", err)
	}
	if err := opened.Con.SetReadBuffer(buffer); err != nil {
		return nil, fmt.Errorf("the queue's buffer: %w", err)
	}
	return opened, nil
}

func (j *judge) listen(ctx context.Context) error {
	queue, err := open()
	if err != nil {
		return err
	}
	defer queue.Close()
	answer := func(id uint32, passes bool) {
		verdict := nfqueue.NfDrop
		if passes {
			verdict = nfqueue.NfAccept
		}
		if err := queue.SetVerdict(id, verdict); err != nil {
			klog.ErrorS(err, "an answer is lost", "id", id)
		}
	}
	packets := func(attributes nfqueue.Attribute) int {
		id := *attributes.PacketID
		packet, err := network.ParsePacket(*attributes.Payload)
		if err != nil {
			klog.ErrorS(err, "a packet can't be read")
			answer(id, false)
			return 0
		}
		if j.knows(packet.SrcIP.String()) {
			answer(id, j.passes(ctx, &packet))
			return 0
		}
		go func() {
			for start := time.Now(); time.Since(start) < patience && !j.knows(packet.SrcIP.String()); {
				time.Sleep(pause)
			}
			answer(id, j.passes(ctx, &packet))
		}()
		return 0
	}
	err = queue.RegisterWithErrorFunc(ctx, packets, func(err error) int {
		if ctx.Err() != nil {
			return 1
		}
		// A full buffer loses packets, which their senders repeat.
		klog.ErrorS(err, "the queue")
		return 0
	})
	if err != nil {
		return fmt.Errorf("the queue: %w", err)
	}
	klog.InfoS("policies hold", "pods", j.pods)
	<-ctx.Done()
	return nil
}

// knows says whether the sender isn't a pod, or one whose labels are known.
func (j *judge) knows(sender string) bool {
	address, err := netip.ParseAddr(sender)
	if err != nil || !j.pods.Contains(address) {
		return true
	}
	_, known := j.people.GetPodInfoByIP(sender)
	return known
}

// passes is the verdict. Nobody knows what a pod without a name may do, so it may do nothing; an address of pods that is nobody's
// is answered by the network (no route to it), as it would be without us.
func (j *judge) passes(ctx context.Context, packet *network.Packet) bool {
	// Through its own Service: Kubernetes lets no policy forbid that.
	if packet.SrcIP.Equal(packet.DstIP) {
		return true
	}
	passes := false
	if j.knows(packet.SrcIP.String()) {
		var err error
		if passes, err = j.engine.EvaluatePacket(ctx, packet); err != nil {
			klog.ErrorS(err, "a packet can't be judged")
		}
	}
	if !passes {
		klog.InfoS("refused", "protocol", packet.Proto, "from", j.name(packet.SrcIP.String()), "to",
			j.name(packet.DstIP.String()), "port", packet.DstPort)
	}
	return passes
}

// name is who has an address.
func (j *judge) name(address string) string {
	if pod, known := j.people.GetPodInfoByIP(address); known {
		return fmt.Sprintf("%s (%s/%s)", address, pod.GetNamespace().GetName(), pod.GetName())
	}
	return address
}

// divert puts the rules in place, all at once and instead of those of a program before: new connections from or to a pod to the
// queue. Without a listener the kernel drops what is meant for a queue. What the node itself sends passes, as Kubernetes wants it
// (probes): it goes through neither chain.
func divert(pods netip.Prefix) error {
	connection, err := nftables.New()
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: "network-policies", Family: nftables.TableFamilyIPv4}
	// Adding one that is there does nothing, deleting one that isn't is an error.
	connection.AddTable(table)
	connection.DelTable(table)
	connection.AddTable(table)
	chain := func(name string, hook *nftables.ChainHook) *nftables.Chain {
		return connection.AddChain(&nftables.Chain{
			Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter,
		})
	}
	const source, destination = 12, 16 // Where the addresses are in IPv4's header.
	forward, input := chain("forward", nftables.ChainHookForward), chain("input", nftables.ChainHookInput)
	connection.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: toQueue(pods, source)})
	connection.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: toQueue(pods, destination)})
	connection.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: toQueue(pods, source)})
	return connection.Flush()
}

// toQueue is `ct state new ip saddr PODS -j NFQUEUE --queue-num 100`; `offset` says which address.
func toQueue(pods netip.Prefix, offset uint32) []expr.Any {
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-pods.Bits()))
	isNew := binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW)
	// struct xt_NFQ_info of linux/netfilter/xt_NFQUEUE.h: the first queue's number and how many there are, padded to 8 bytes.
	information := make(xt.Unknown, 8)
	binary.NativeEndian.PutUint16(information[:2], queue)
	binary.NativeEndian.PutUint16(information[2:4], 1)
	return []expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: isNew, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: pods.Masked().Addr().AsSlice()},
		&expr.Target{Name: "NFQUEUE", Rev: 1, Info: &information},
	}
}
