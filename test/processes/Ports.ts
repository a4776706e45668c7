/** Port bases for clusters of tests, so that tests never meet each other, nor a cluster that a person runs at the usual ports. */
function canListen(port: number): boolean {
  try {
    Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } }).stop(true)
    return true
  } catch {
    return false
  }
}

const basesPerBlock = 10
const blocks = 90
let next = (process.pid % blocks) * basesPerBlock

/**
 * Bases lie in blocks of 200 ports: ten times ten for clients, then the same for peers, so that the ports of two bases never meet, even
 * while the nodes of one are down.
 */
function baseOf(index: number): number {
  const block = Math.floor(index / basesPerBlock) % blocks
  return 12_000 + 200 * block + 10 * (index % basesPerBlock)
}

/**
 * A base B such that nothing listens at B + i and B + 100 + i for the nodes asked for. Below the ports that the kernel gives to outgoing
 * connections, so that none of those takes one of them later.
 */
export function freePortBase(nodes: number): number {
  for (let attempt = 0; attempt < blocks * basesPerBlock; attempt++) {
    const base = baseOf(next++)
    const ports = Array.from({ length: nodes }, (_, i) => [base + 1 + i, base + 101 + i]).flat()
    if (ports.every(canListen)) return base
  }
  throw new Error("no free port base was found")
}
