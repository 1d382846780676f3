package samples;

import dev.restate.sdk.SharedWorkflowContext;
import dev.restate.sdk.WorkflowContext;
import dev.restate.sdk.annotation.Shared;
import dev.restate.sdk.annotation.Workflow;
import dev.restate.sdk.common.DurablePromiseKey;
import dev.restate.sdk.common.RetryPolicy;
import dev.restate.sdk.common.StateKey;
import dev.restate.sdk.common.TerminalException;
import java.time.Duration;

/**
 * A workflow: a payment that charges once, and then waits for the word of the bank, however long
 * that takes.
 *
 * <p>A workflow runs once per key. While {@code run} waits, nothing of it need be in memory
 * anywhere; the other handlers see its state and complete its promises.
 */
@Workflow
public class Payment {
  private static final StateKey<String> STATUS = StateKey.of("status", String.class);
  private static final DurablePromiseKey<String> OUTCOME =
      DurablePromiseKey.of("outcome", String.class);

  public record Order(String account, int amount) {}

  public record Result(String outcome, String receipt) {}

  /** A bank that cannot be reached is asked again for an hour; then the payment fails. */
  private static RetryPolicy patiently() {
    return RetryPolicy.exponential(Duration.ofMillis(100), 2)
        .setMaxDelay(Duration.ofSeconds(10))
        .setMaxDuration(Duration.ofHours(1));
  }

  /** The whole payment, from the order to the message to the customer. */
  @Workflow
  public Result run(WorkflowContext ctx, Order order) {
    if (order.amount() <= 0) {
      throw new TerminalException(400, "not an amount: " + order.amount());
    }

    // The key goes along: a bank recognises by it a charge that is repeated because its answer was
    // lost.
    ctx.set(STATUS, "charging");
    String receipt =
        ctx.run(
            "charge",
            String.class,
            patiently(),
            () -> Systems.write("bank", ctx.key(), String.valueOf(order.amount())));

    ctx.set(STATUS, "waiting for the bank");
    String outcome = ctx.promise(OUTCOME).future().await();

    ctx.run("notify", () -> Systems.write("mail", order.account(), ctx.key() + ":" + outcome));
    ctx.set(STATUS, outcome);
    return new Result(outcome, receipt);
  }

  /**
   * The bank calls this, minutes or days later. A second call is refused: a promise has one
   * completion.
   */
  @Shared
  public void webhook(SharedWorkflowContext ctx, String outcome) {
    ctx.promiseHandle(OUTCOME).resolve(outcome);
  }

  @Shared
  public String status(SharedWorkflowContext ctx) {
    return ctx.get(STATUS).orElse("unknown");
  }
}
