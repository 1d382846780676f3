package contract;

import dev.restate.sdk.SharedWorkflowContext;
import dev.restate.sdk.WorkflowContext;
import dev.restate.sdk.annotation.Name;
import dev.restate.sdk.annotation.Shared;
import dev.restate.sdk.annotation.Workflow;
import dev.restate.sdk.common.DurablePromiseKey;
import dev.restate.sdk.common.StateKey;
import dev.restate.sdk.common.TerminalException;

/** Promises from both sides, shared handlers beside the run. */
@Workflow
public class Flow {
  private static final StateKey<String> STATUS = StateKey.of("status", String.class);
  private static final DurablePromiseKey<String> APPROVAL =
      DurablePromiseKey.of("approval", String.class);

  @Workflow
  public String run(WorkflowContext ctx, String item) {
    ctx.set(STATUS, "waiting");
    String approval;
    try {
      approval = ctx.promise(APPROVAL).future().await();
    } catch (TerminalException e) {
      approval = "refused, " + e.getMessage();
    }
    ctx.set(STATUS, "done");
    return item + ": " + approval;
  }

  @Shared
  public String status(SharedWorkflowContext ctx) {
    return ctx.get(STATUS).orElse(null);
  }

  @Shared
  public void approve(SharedWorkflowContext ctx, String text) {
    ctx.promiseHandle(APPROVAL).resolve(text);
  }

  @Shared
  public void refuse(SharedWorkflowContext ctx, String reason) {
    ctx.promiseHandle(APPROVAL).reject(reason);
  }

  @Shared
  public String peek(SharedWorkflowContext ctx) {
    return ctx.promise(APPROVAL).peek().orElse(null);
  }

  @Shared
  @Name("wait")
  public String waitBeside(SharedWorkflowContext ctx) {
    return ctx.promise(APPROVAL).future().await();
  }
}
