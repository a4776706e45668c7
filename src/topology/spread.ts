import type { NodeId } from "../types.ts"

/** Where a node stands: names of the failure domains that it is in; empty or absent = not told, which counts as one of its own. */
export interface Standing {
  readonly node: NodeId
  readonly zone?: string
  readonly rack?: string
  readonly host?: string
}

const zoneOf = ({ node, zone = "" }: Standing) => (zone === "" ? `?${node}` : zone)
const rackOf = (place: Standing) =>
  `${place.zone ?? ""}/${(place.rack ?? "") === "" ? `?${place.node}` : place.rack}`
const hostOf = ({ node, host = "" }: Standing) => (host === "" ? `?${node}` : host)

export interface Domains {
  readonly zones: number
  readonly racks: number
  readonly hosts: number
}

/** How many different zones, racks and hosts these are in. */
export function domainsOf(places: Iterable<Standing>): Domains {
  const [zones, racks, hosts] = [new Set<string>(), new Set<string>(), new Set<string>()]
  for (const place of places) {
    zones.add(zoneOf(place))
    racks.add(rackOf(place))
    hosts.add(hostOf(place))
  }
  return { zones: zones.size, racks: racks.size, hosts: hosts.size }
}

/** How well copies are spread, as one number: a zone more outweighs any racks, a rack more any hosts. */
export function spreadNumber({ zones, racks, hosts }: Domains): number {
  return zones * 4096 + racks * 64 + hosts
}

export function spreadOf(places: Iterable<Standing>): number {
  return spreadNumber(domainsOf(places))
}
