import { BlockCache } from "./blockCache.ts"
import { KeyCache } from "./keyCache.ts"
import { RowCache } from "./rowCache.ts"

/** Budgets in bytes; 0 = that cache is off. */
export interface CacheBudgets {
  readonly blockBytes: number
  readonly keyBytes: number
  readonly rowBytes: number
}

/**
 * The caches of an engine: blocks of tables, places of keys in tables, values of keys. The tables
 * use the first two; who writes and reads keys uses the last.
 */
export class Caches {
  readonly block: BlockCache
  readonly key: KeyCache
  readonly row: RowCache
  private owners = 0

  constructor(budgets: CacheBudgets) {
    this.block = new BlockCache(budgets.blockBytes)
    this.key = new KeyCache(budgets.keyBytes)
    this.row = new RowCache(budgets.rowBytes)
  }

  /** A number for a table that no other one has or had, whatever file it reads. */
  newOwner(): number {
    return ++this.owners
  }
}
